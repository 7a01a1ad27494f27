"""What trainings depend on, as ``dvc.yaml`` has it. Where that differs, another study begins."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import UserError
from stages.common.params import PARAMS
from tools.git import output

PIPELINE = Path("dvc.yaml")


class Pipeline:
    """The trainings ``targets`` and the stages ``before`` them, at a ``commit`` or as they are here.

    Raises:
        UserError: ``dvc.yaml`` has no such stages, or is none.
    """

    def __init__(self, targets: Sequence[str], commit: str = "") -> None:
        self.targets, self.commit = targets, commit
        at = f" at {commit[:10]}" if commit else ""
        try:
            pipeline: dict[str, Any] = read(PIPELINE, commit)["stages"]
            made_by = {_path(out): name for name, stage in pipeline.items() for out in stage.get("outs", ())}
        except (YAMLError, TypeError, KeyError, AttributeError) as error:
            problem = " ".join(str(error).split())
            raise UserError(
                f"{PIPELINE}{at} is no pipeline of DVC's: {type(error).__name__} {problem}"
            ) from None
        self.stages, waiting = dict[str, Any](), [*targets]
        while waiting:
            name = waiting.pop()
            if name not in pipeline:
                raise UserError(f"{PIPELINE} has no stage {name}{at}")
            self.stages[name] = pipeline[name]
            waiting += [made_by[path] for path in pipeline[name].get("deps", ()) if path in made_by]
        self.before = [name for name in self.stages if name not in targets]
        deps = {path for stage in self.stages.values() for path in stage.get("deps", ())}
        self.files = [f"./{path}" for path in sorted(deps - made_by.keys())]
        self.keys = {key for stage in self.stages.values() for key in stage.get("params", ())}
        params = read(PARAMS, commit)
        self.params = {
            key: params.get(section, {}).get(name, {}) if name else params.get(section, {})
            for key in sorted(self.keys)
            for section, _, name in [key.partition(".")]
        }

    def reads(self, parameter: str) -> bool:
        """Whether one of the stages reads ``parameter``."""
        return not self.keys.isdisjoint({parameter, parameter.split(".")[0]})

    def digest(self, shared: Any) -> str:
        """Eight hexadecimal digits of code, stages and parameters at the commit, and what is ``shared``."""
        files = output("ls-tree", self.commit, "--", *self.files)
        return digest([files, self.stages, self.params, shared])[:8]

    def require_here(self) -> None:
        """Refuse to start where the targets would not be what the files here say: the commit is what runs.

        Raises:
            UserError: naming the files that differ.
        """
        here = Pipeline(self.targets)
        changed = output("diff", "--name-only", "--relative", self.commit, "--", *here.files).splitlines()
        ignored = ["--exclude-standard"]
        if (dvcignore := Path(".dvcignore").absolute()).exists():
            ignored.append(f"--exclude-from={dvcignore}")
        changed += output("ls-files", "--others", *ignored, "--", *here.files).splitlines()
        changed += [str(PIPELINE)] if here.stages != self.stages else []
        changed += [str(PARAMS)] if here.params != self.params else []
        if changed:
            raise UserError(
                f"not as in commit {self.commit[:10]}, which a sweep runs: {', '.join(sorted(changed))}: "
                "commit them ('git commit'), or put them back ('git checkout')"
            )


def digest(content: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read(path: Path, commit: str = "") -> Any:
    """The content of DVC's file ``path`` at a ``commit``, which may be an experiment, or as it is here."""
    text = output("show", f"{commit}:./{path}") if commit else path.read_text(encoding="utf-8")
    return YAML(typ="safe", pure=True).load(text)  # YAML 1.2


def with_changes(params: Any, changes: Mapping[str, Any]) -> Any:
    """The content of ``params.yaml`` with ``changes``, by ``section.key``."""
    content = copy.deepcopy(params)
    for parameter, value in changes.items():
        section, _, name = parameter.partition(".")
        content.setdefault(section, {})[name] = value
    return content


def _path(out: Any) -> str:
    return next(iter(out)) if isinstance(out, dict) else str(out)
