"""What trained the models: here, by their run records, and the committed ones."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

COMMITTED = Path("docs/machine.json")  # of each committed model what `machine` gave when it was committed


def machine(model: str) -> dict[str, Any] | None:
    """Device, precision, threads and versions that trained ``models/<model>.safetensors``, and its SHA-256.

    None where the run record is missing, or is that of another file: DVC restored the model, and did not
    train it here.
    """
    try:
        record = json.loads(Path(f"runs/{model}.json").read_text(encoding="utf-8"))
        trained = _sha256(Path(f"models/{model}.safetensors"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("model_sha256") != trained:
        return None
    return {key: value for key, value in record.items() if key not in ("reason", "epochs")}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two machines, as text."""
    for key in {**there, **here}:
        if there.get(key) != here.get(key) and key != "model_sha256":
            yield f"{key.replace('_', ' ')} {there.get(key)} there, {here.get(key)} here"


def newly_trained(models: Iterable[str]) -> str | None:
    """The content of `COMMITTED` for the ``models`` here; None where nothing in it changes.

    A model that is not here, or is the one that it knows, keeps its entry. One that was restored from
    elsewhere has none.
    """
    before = json.loads(COMMITTED.read_text(encoding="utf-8")) if COMMITTED.exists() else {}
    now = {}
    for model in models:
        path, entry = Path(f"models/{model}.safetensors"), before.get(model)
        if path.exists() and (entry is None or entry["model_sha256"] != _sha256(path)):
            entry = machine(model)
        if entry:
            now[model] = entry
    return None if now == before else json.dumps(now, indent=2) + "\n"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
