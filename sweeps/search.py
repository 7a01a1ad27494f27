"""A search file: which settings are tried, with which seeds; checked before anything runs."""

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from math import nextafter
from pathlib import Path
from typing import Annotated, Any

import optuna
import yaml
from pydantic import Field

from stages.common.errors import UserError
from stages.common.params import Schema, check, key, read
from tools.models import MODELS

TRAININGS = [f"train_{model}" for model in MODELS]
Training = Annotated[str, Field(pattern=f"^({'|'.join(TRAININGS)})$")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Name = Annotated[str, Field(pattern=r"^\w+$")]
Key = Annotated[str, Field(pattern=r"^\w+\.\w+$")]
Changes = dict[Key, Any]
Values = Annotated[list[Any], Field(min_length=1)]
Call = Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class Search(Schema):
    """One of ``settings`` (only reported), ``grid`` and ``space``; the other keys go with each of them.

    Samplers and pruners have their names in Optuna, the axes of ``space`` what follows ``suggest_`` there.
    """

    targets: list[Training] = key("stages", f"a list of trainings: {', '.join(TRAININGS)}", min_length=1)
    seeds: list[Seed] = key("train.seed", "a list of whole numbers from 0 to 4294967295", min_length=1)
    fixed: Changes = key("in all settings", "parameters and values, {train.epochs: 8}", default={})
    settings: dict[Name, Changes] = key("named", "{name: changes}, names such as off in quotes", default={})
    grid: dict[Key, Values] = key("combined", "parameters and lists, {reg.dropout: [0, 0.1]}", default={})
    space: dict[Key, Call] = key("sampled", "{reg.dropout: {float: {low: 0, high: 0.2}}}", default={})
    trials: int = key("of each setting", "a whole number above 0", default=1, ge=1)
    sampler: Call = key("Optuna's", "like {TPESampler: {multivariate: true}}", default={"TPESampler": {}})
    pruner: Call = key("Optuna's", "like {MedianPruner: {n_warmup_steps: 2}}", default={"NopPruner": {}})

    def planned_trials(self) -> dict[str, tuple[str, Changes, list[int]]]:
        """Each trial by name: its setting, the changes known before, its seeds, run one after the other."""
        if self.settings:  # nothing is compared on the way: a trial for each seed
            pairs = itertools.product(self.settings.items(), self.seeds)
            return {f"{name}-s{seed}": (name, changes, [seed]) for (name, changes), seed in pairs}
        rows = enumerate(combinations(self.grid) * self.trials)
        return {f"{number:04}": (f"{number:04}", changes, self.seeds) for number, changes in rows}

    def suggest(self, trial: optuna.trial.BaseTrial) -> Changes:
        """What the sampler chooses in ``trial``: nothing without a ``space``."""
        axes = [(key, *call) for key, axis in self.space.items() for call in axis.items()]
        return {key: getattr(trial, f"suggest_{kind}")(key, **arguments) for key, kind, arguments in axes}

    def prepare(self, study: optuna.Study) -> None:
        """Give ``study`` its sampler and pruner."""
        ((sampler, options),), ((pruner, pruning),) = self.sampler.items(), self.pruner.items()
        study.sampler = getattr(optuna.samplers, sampler)(**options)
        study.pruner = getattr(optuna.pruners, pruner)(**pruning)

    def examples(self) -> list[Changes]:
        """Changes that stand for all: those of the planned trials, or the corners of the ``space``."""
        self.suggest(probe := optuna.create_study().ask())
        axes = {key: _examples(axis) for key, axis in probe.distributions.items()}
        return combinations(axes) if axes else [changes for _, changes, _ in self.planned_trials().values()]


def _examples(axis: Any) -> Sequence[Any]:
    """Choices, or both ends; of a range of floats a value inside too, which is no whole number as 0.0 is."""
    if hasattr(axis, "choices"):
        return list(axis.choices)
    return [axis.low, axis.high, *([nextafter(axis.low, axis.high)] if isinstance(axis.low, float) else [])]


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[Changes]:
    """All combinations of the axes' values."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def load(path: Path) -> Search:
    """Read a search file and check all that it may try against the schema of the parameters.

    Raises:
        UserError: naming the file, the place in it and what is wrong.
    """
    from stages.params import check_all  # imports torch, which `worker` does not need

    try:
        text = path.read_text(encoding="utf-8")
        _check_yaml(yaml.compose(text, yaml.SafeLoader), path)
        search = check(Search, yaml.safe_load(text), str(path))
        search.prepare(optuna.create_study())
        examples = search.examples()
    except UserError:
        raise
    except Exception as error:  # whatever YAML and Optuna raise
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if sum(map(bool, (search.settings, search.grid, search.space))) != 1:
        raise UserError(f"{path}: give one of settings, grid and space")
    defaults = read()
    for changes in examples:
        content = copy.deepcopy(defaults)
        for parameter, value in (search.fixed | changes).items():
            section, name = parameter.split(".")
            content.setdefault(section, {})[name] = value
        params = check_all(content, f"{path} with {changes}")
        if not search.settings and not (params.data.validation_size and len(search.targets) == 1):
            raise UserError(f"{path}: a search needs one target, and data.validation_size above 0 in fixed")
        if "train.seed" in search.fixed | changes:
            raise UserError(f"{path}: train.seed is what seeds are for")
    return search


def _check_yaml(node: Any, path: Path) -> None:
    """Refuse what PyYAML, which reads YAML 1.1, would silently take for something else.

    Raises:
        UserError: a number such as ``5e-05``, which would be text, or a key that is there twice.
    """
    if isinstance(node, yaml.CollectionNode):
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise UserError(f"{path}: the key {repeated[0]} is there twice")
        for part in node.value:
            _check_yaml(part[1] if keys else part, path)
    elif node and node.tag.endswith(":str") and not node.style and NUMBER.fullmatch(node.value):
        number = yaml.safe_dump(float(node.value)).split()[0]
        raise UserError(f"{path}: {node.value} is text in YAML 1.1: write {number}")
