"""Metrics of trainings: those that have ended, and those that have not."""

from collections.abc import Mapping
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
