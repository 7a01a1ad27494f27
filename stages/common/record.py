"""What DVC records of a stage: the parameters, code and files that it finds when the stage has ended.

DVC looks at them after the command, not before. Whether the stage has worked with the same, only the
stage itself can tell.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pathspec import GitIgnoreSpec

from stages.common import parent, snapshot
from stages.common.errors import UserError
from stages.common.files import READ, WRITTEN, require_space
from stages.common.params import LOADED, PARAMS, read, short
from stages.common.snapshot import AT_START, md5_of

MUCH = 20_000_000  # bytes, for which it is worth a second to ask DVC where its cache is


@dataclass
class Declared:
    """What ``dvc.yaml`` says of one stage and ``.dvcignore`` leaves out, both as they were at the start."""

    code: list[str] = field(default_factory=list)  # dependencies below stages/
    outputs: list[Path] = field(default_factory=list)
    cached: list[Path] = field(default_factory=list)  # those of the outputs that go into DVC's cache
    ignored: GitIgnoreSpec = field(default_factory=lambda: GitIgnoreSpec.from_lines([]))

    def counts(self, file: str) -> bool:
        """Whether DVC takes ``file`` for a part of this stage's code."""
        inside = any(file == path or file.startswith(f"{path}/") for path in self.code)
        return inside and not self.ignored.match_file(file)


_declared: Declared | None = None  # None: nothing is compared


def begin(stage: str) -> None:
    """Read what DVC will look at when ``stage`` has ended, and refuse what it would refuse then.

    Where there is no ``dvc.yaml`` with this stage, no code and no outputs are compared.

    Raises:
        UserError: the code changed while it was imported, or an output cannot be written or recorded.
    """
    global _declared
    READ.clear()
    WRITTEN.clear()
    LOADED.clear()
    _declared = declared = _read(stage)
    now = snapshot.code(Path()) if declared.code else {}
    moved = [file for file in AT_START if declared.counts(file) and now.get(file) != AT_START[file]]
    if moved:
        raise UserError(f"{moved[0]} changed while it was imported: run the command again")
    for output in declared.outputs:
        _require_place(output, output in declared.cached)


def verify_inputs(remedy: str) -> None:
    """Compare what the stage was started with with what is there now, which is what DVC will record.

    Raises:
        UserError: they differ; it names what, and ends with ``remedy``.
        Terminated: DVC has ended.
    """
    _verify(remedy, outputs=False)


def verify(remedy: str) -> None:
    """As `verify_inputs`, and compare what the stage has written with what is there now.

    Raises:
        UserError: something differs; it names what, and ends with ``remedy``.
        Terminated: DVC has ended.
    """
    _verify(remedy, outputs=True)


def _verify(remedy: str, outputs: bool) -> None:
    parent.check()
    if _declared is None:
        return
    changes = [*_changed_params(), *_changed_code(_declared), *_changed_files()]
    changes += _changed_outputs(_declared) if outputs else ()
    changes = list(dict.fromkeys(changes))
    if changes:
        more = f" (and {len(changes) - 3} more)" if len(changes) > 3 else ""
        raise UserError(f"{'; '.join(changes[:3])}{more}: {remedy}")


def require_room(output: Path, size: int) -> None:
    """Tell before the work that the disk of ``output``, or that of DVC's cache, will not take ``size`` bytes.

    Raises:
        UserError: it has less left.
    """
    require_space(output.parent, size)
    if parent.PARENT and size > MUCH:
        require_space(_cache_of_dvc(), size)


def recorded(result: Mapping[str, Any], before: float) -> bool:
    """Whether DVC had recorded ``result``, as `description` gave it, before the time ``before``.

    That is so where DVC's run cache has an entry for it and the cache has the model: DVC writes the entry
    first. A stage that is started all the same was forced.
    """
    md5 = result["model_md5"]
    needle = f"md5: {md5}\n"
    for folder in (_default_cache, _cache_of_dvc):
        if not (folder() / "files" / "md5" / md5[:2] / md5[2:]).exists():
            continue
        for path in folder().glob("runs/??/*/*"):
            # another process may remove it, and what is damaged there DVC removes itself
            with suppress(OSError, UserError, LookupError, TypeError, ValueError):
                if path.stat().st_mtime < before and needle in path.read_text():
                    entry = read(path)
                    code = {dep["path"]: dep.get("md5") for dep in entry["deps"]}
                    if result["code"].items() <= code.items() and entry.get("params") == result["params"]:
                        return True
    return False


def description(model: Path) -> dict[str, Any]:
    """By what `recorded` finds a result whose model is in the file ``model``: code, parameters, MD5."""
    declared = _declared or Declared()
    return {
        "model_md5": md5_of(model),
        "code": {path: _md5_in_dvc(path, declared) for path in declared.code},
        "params": {str(PARAMS): {section.name: values for section, values in LOADED}},
    }


def _read(stage: str) -> Declared:
    try:
        pipeline = yaml.safe_load(Path("dvc.yaml").read_text())
        lines = Path(".dvcignore").read_text().splitlines() if Path(".dvcignore").exists() else []
        entry = pipeline["stages"][stage]
    except (FileNotFoundError, KeyError, TypeError):
        if parent.PARENT:
            raise UserError(f"dvc.yaml has no stage {stage} any more: run the command again") from None
        return Declared()
    except yaml.YAMLError as error:
        raise UserError(f"dvc.yaml is not valid YAML: {' '.join(str(error).split())}") from None
    outputs = {
        Path(path if isinstance(path, str) else next(iter(path))): kind == "outs"
        for kind in ("outs", "metrics", "plots")
        for path in entry.get(kind, [])
    }
    return Declared(
        code=[path for path in entry.get("deps", []) if path.split("/")[0] == "stages"],
        outputs=list(outputs),
        cached=[path for path, cached in outputs.items() if cached],
        ignored=GitIgnoreSpec.from_lines(lines),
    )


def _changed_params() -> Iterator[str]:
    """Of the keys that the stage has read, those that are others now."""
    try:
        content = read() if LOADED else {}
    except UserError as error:
        yield f"while this ran, {error}"
        return
    for section, then in LOADED:
        now = section.own(content.get(section.name)) if isinstance(content, dict) else {}
        for key in sorted({*then, *now}):
            was, is_now = (short(values[key]) if key in values else "missing" for values in (then, now))
            if then.get(key, was) != now.get(key, is_now):
                yield f"{PARAMS} changed while this ran: {section.name}.{key} was {was} and is {is_now}"


def _changed_code(declared: Declared) -> Iterator[str]:
    """The files of the stage's code that are others now, are gone, or are new."""
    now = snapshot.code(Path()) if declared.code else {}
    for file in sorted({*AT_START, *now}):
        if declared.counts(file):
            was, is_now = AT_START.get(file), now.get(file)
            if was is None or is_now is None:
                yield f"{file} {'appeared' if was is None else 'disappeared'} while this ran"
            elif was.md5 != is_now.md5:
                yield f"{file} changed while this ran"


def _changed_files() -> Iterator[str]:
    """The inputs that are others now or are gone."""
    for path, md5 in READ.items():
        if not path.exists():
            yield f"{path} disappeared while this ran"
        elif md5_of(path) != md5:
            yield f"{path} changed while this ran"


def _changed_outputs(declared: Declared) -> Iterator[str]:
    """The files among the outputs that something else has written or removed since the stage wrote them."""
    for path, md5 in WRITTEN.items():
        if any(path.is_relative_to(output) for output in declared.outputs):
            if not path.exists():
                yield f"something else removed {path} while this ran"
            elif md5_of(path) != md5:
                yield f"something else changed {path} while this ran"
    for folder in declared.outputs if parent.PARENT else ():  # DVC has emptied them before
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path not in WRITTEN and not declared.ignored.match_file(path):
                yield f"something else wrote {path} while this ran"


def _require_place(output: Path, cached: bool) -> None:
    """Refuse an output that cannot be written, or that DVC would refuse when all the work is done.

    Raises:
        UserError: it names the folder and what to do.
    """
    folder = output.parent
    top = next((path for path in (Path.cwd(), *Path.cwd().parents) if (path / ".git").exists()), None)
    out = top and not Path(os.path.realpath(folder)).is_relative_to(top.resolve())
    if cached and out and _dvc("config", "core.no_scm").lower() != "true":
        link = next(path for path in (folder, *folder.parents) if path.is_symlink())
        raise UserError(
            f"{link} is a link out of the Git repository, to {os.path.realpath(link)!r}, where DVC takes no "
            "output: make it a folder. To use another disk, put DVC's cache there ('dvc cache dir --local "
            "<folder>') and let DVC link to it ('dvc config --local cache.type symlink')"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{output} cannot be written: {str(folder)!r} takes no new file ({error.strerror}): "
            "change that, then run the command again"
        ) from None


def _default_cache() -> Path:
    return Path(os.environ.get("DVC_ROOT", ".")) / ".dvc" / "cache"


@cache
def _cache_of_dvc() -> Path:
    """The cache where DVC says that it is."""
    answer = _dvc("cache", "dir")
    return Path(answer) if answer else _default_cache()


def _dvc(*words: str) -> str:
    """What DVC answers, nothing where it fails: that takes a second."""
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _md5_in_dvc(path: str, declared: Declared) -> str:
    """DVC's MD5 of a dependency below stages/, as it was at the start: a folder's is that of a list."""
    if path in AT_START:
        return AT_START[path].md5
    files = [
        {"md5": seen.md5, "relpath": file.removeprefix(f"{path}/")}
        for file, seen in AT_START.items()
        if file.startswith(f"{path}/") and declared.counts(file)
    ]
    listing = json.dumps(sorted(files, key=lambda entry: entry["relpath"]), sort_keys=True)
    return f"{hashlib.md5(listing.encode()).hexdigest()}.dir"
