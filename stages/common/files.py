"""Files that appear whole or not at all."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` aside, then rename it to ``path``: nobody ever sees half a file.

    Raises:
        OSError: naming ``path``, which is left as it was, or the folder that cannot be made.
    """
    # by process: two experiments at a time may write the same run record
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # gone after the rename
            aside.unlink()


def write_json(path: Path, content: Mapping[str, Any], indent: int | None = 2) -> None:
    """Write ``content`` as JSON. Refuses NaN and infinity, which JSON does not have (ValueError)."""
    write_bytes(path, (json.dumps(content, indent=indent, allow_nan=False) + "\n").encode())


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write ``header`` and ``rows`` as CSV with Unix line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
