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
        record: dict[str, Any] = json.loads(Path(f"runs/{model}.json").read_text(encoding="utf-8"))
        trained = hashlib.sha256(Path(f"models/{model}.safetensors").read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    if record.get("model_sha256") != trained:
        return None
    return {key: value for key, value in record.items() if key not in ("reason", "epochs")}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two machines, as text."""
    for key in {**there, **here}:
        if there.get(key) != here.get(key) and key != "model_sha256":
            yield f"{key.replace('_', ' ')} {there.get(key)} there, {here.get(key)} here"


def newly_trained(models: Iterable[str]) -> str | None:
    """The content of `COMMITTED` for the ``models`` here.

    None where it has these very models, or not all of them were trained here.
    """
    before = json.loads(COMMITTED.read_text(encoding="utf-8")) if COMMITTED.exists() else {}
    now = {model: machine(model) for model in models}
    if not all(now.values()) or all(
        record and record["model_sha256"] == before.get(model, {}).get("model_sha256")
        for model, record in now.items()
    ):
        return None
    return json.dumps(now, indent=2) + "\n"
