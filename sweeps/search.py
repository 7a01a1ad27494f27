"""A search file: which settings are tried, with which seeds; checked before anything runs."""

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import optuna
import yaml
from pydantic import Field, ValidationError

from stages.common.errors import UserError
from stages.common.params import Schema, read, seed, short
from stages.params import check_all
from tools.models import MODELS

Training = Annotated[str, Field(pattern=f"^train_({'|'.join(MODELS)})$")]
Key = Annotated[str, Field(pattern=r"^\w+\.\w+$")]
Changes = dict[Key, Any]
Call = Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]  # {name: {argument: value}}
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class Search(Schema):
    """One of ``settings`` (only reported), ``grid`` and ``space``; the other keys go with each of them.

    What is Optuna's has its name there, ``{TPESampler: {multivariate: true}}``; an axis of ``space`` what
    follows ``suggest_`` there, ``{float: {low: 0, high: 0.2}}``.
    """

    targets: list[Training] = Field(min_length=1)
    seeds: list[Annotated[int, seed()]] = Field(min_length=1)
    fixed: Changes = Field(default={})
    settings: dict[Annotated[str, Field(pattern=r"^\w+$")], Changes] = Field(default={})
    grid: dict[Key, Annotated[list[Any], Field(min_length=1)]] = Field(default={})
    space: dict[Key, Call] = Field(default={})
    trials: int = Field(default=1, ge=1)
    sampler: Call = Field(default={"TPESampler": {}})
    pruner: Call = Field(default={"NopPruner": {}})

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
        axes: dict[str, Any] = probe.distributions
        ends = {key: getattr(axis, "choices", None) or (axis.low, axis.high) for key, axis in axes.items()}
        return combinations(ends) if ends else [changes for _, changes, _ in self.planned_trials().values()]


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[Changes]:
    """All combinations of the axes' values."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def load(path: Path) -> Search:
    """Read a search file and check all that it may try against the schema of the parameters.

    Raises:
        UserError: naming the file, the place in it and what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _check_yaml(yaml.compose(text, yaml.SafeLoader))
        search = Search.model_validate(yaml.safe_load(text))
        search.prepare(optuna.create_study())
        examples = search.examples()
    except ValidationError as invalid:
        error = invalid.errors()[0]
        place = ".".join(map(str, error["loc"]))
        raise UserError(f"{path}: {place}: {error['msg']}: it is {short(error['input'])}") from None
    except Exception as error:  # whatever YAML and Optuna raise
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if sum(map(bool, (search.settings, search.grid, search.space))) != 1:
        raise UserError(f"{path}: give one of settings, grid and space")
    defaults = read()
    for changes in examples:
        content = copy.deepcopy(defaults)
        for key, value in (search.fixed | changes).items():
            section, name = key.split(".")
            content.setdefault(section, {})[name] = value
        params = check_all(content, f"{path} with {changes}")
        if not search.settings and not (params.data.validation_size and len(search.targets) == 1):
            raise UserError(f"{path}: a search needs one target, and data.validation_size above 0 in fixed")
        if "train.seed" in search.fixed | changes:
            raise UserError(f"{path}: train.seed is what seeds are for")
    return search


def _check_yaml(node: Any) -> None:
    """Refuse what PyYAML, which reads YAML 1.1, would silently take for something else.

    Raises:
        ValueError: a number such as ``5e-05``, which would be text, or a key that is there twice.
    """
    if isinstance(node, yaml.CollectionNode):
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"the key {repeated[0]} is there twice")
        for part in node.value:
            _check_yaml(part[1] if keys else part)
    elif node and node.tag.endswith(":str") and not node.style and NUMBER.fullmatch(node.value):
        number = yaml.safe_dump(float(node.value)).split()[0]
        raise ValueError(f"{node.value} is text in YAML 1.1: write {number}")
