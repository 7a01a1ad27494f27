"""Files of metrics: reading them, and those of a training that has not ended."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.common.errors import UserError


def require_finished(metrics: Mapping[str, Any], source: str) -> None:
    """Refuse the ``metrics`` of a training that has not ended; ``source`` names them.

    A training writes its metrics after every epoch. ``train_accuracy`` is there when it has ended.

    Raises:
        UserError: it has not ended.
    """
    if "train_accuracy" not in metrics:
        epochs = len(metrics.get("history", ()))
        raise UserError(
            f"{source} is of a training that has not ended, after epoch {epochs}: 'dvc repro' ends it, "
            "'git checkout -- metrics' brings the committed ones back"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The content of a metrics file.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run 'dvc repro' first") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}): restore it, or run 'dvc repro'") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no metrics: restore it, or run 'dvc repro'")
    return content
