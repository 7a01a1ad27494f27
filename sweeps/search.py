"""A search file: which settings are tried, with which seeds; checked before anything runs."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from pydantic import Field, ValidationError
from ruamel.yaml import YAML

from stages.common.errors import UserError
from stages.common.params import PARAMS, Section, check

Training = Literal["train_baseline", "train_cnn", "train_augmented", "train_regularized"]
Changes = dict[Annotated[str, Field(pattern=r"^\w+\.\w+$")], Any]
Named = Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]


class Search(Section):
    """One of ``settings`` (only reported), ``grid`` and ``space``; the other keys go with each of them.

    What is Optuna's has its name there, ``{TPESampler: {multivariate: true}}``; an axis of ``space`` what
    follows ``suggest_`` there, ``{float: {low: 0, high: 0.2}}``.
    """

    targets: list[Training] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=0, le=2**32 - 1)]] = Field(min_length=1)
    fixed: Changes = Field(default={})
    settings: dict[Annotated[str, Field(pattern=r"^\w+$")], Changes] = Field(default={})
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default={})
    space: dict[str, Named] = Field(default={})
    trials: int = Field(default=1, ge=1)
    sampler: Named = Field(default={"TPESampler": {}})
    pruner: Named = Field(default={"NopPruner": {}})

    def plan(self) -> dict[str, tuple[str, Changes, list[int]]]:
        """Each trial by name: its setting, the changes known before, its seeds, run one after the other."""
        if self.settings:  # nothing is compared on the way: a trial for each seed
            pairs = itertools.product(self.settings.items(), self.seeds)
            return {f"{name}-s{seed}": (name, changes, [seed]) for (name, changes), seed in pairs}
        rows = enumerate(product(self.grid) * self.trials)
        return {f"{number:04}": (f"{number:04}", changes, self.seeds) for number, changes in rows}

    def suggest(self, trial: optuna.trial.BaseTrial) -> Changes:
        """What the sampler chooses in ``trial``: nothing without a ``space``."""
        axes = [(key, *ask) for key, axis in self.space.items() for ask in axis.items()]
        return {key: getattr(trial, f"suggest_{kind}")(key, **options) for key, kind, options in axes}

    def prepare(self, study: optuna.Study) -> None:
        """Give ``study`` its sampler and pruner."""
        ((sampler, options),), ((pruner, more),) = self.sampler.items(), self.pruner.items()
        study.sampler = getattr(optuna.samplers, sampler)(**options)
        study.pruner = getattr(optuna.pruners, pruner)(**more)

    def examples(self) -> list[Changes]:
        """Changes that stand for all: those of the plan, or the corners of the ``space``."""
        self.suggest(probe := optuna.create_study().ask())
        axes: dict[str, Any] = probe.distributions
        ends = {key: getattr(axis, "choices", None) or (axis.low, axis.high) for key, axis in axes.items()}
        return product(ends) if ends else [changes for _, changes, _ in self.plan().values()]


def product(axes: Mapping[str, Sequence[Any]]) -> list[Changes]:
    """All combinations of the values."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def load(path: Path) -> Search:
    """Read a search file and check all that it may try against the schema of the parameters.

    Raises:
        UserError: naming the file, the place in it and what is wrong.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        search = Search.model_validate(yaml.load(path))
        search.prepare(optuna.create_study())
        examples = search.examples()
    except ValidationError as invalid:
        error = invalid.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, error['loc']))}: {error['msg']}") from None
    except Exception as error:  # whatever YAML and Optuna raise
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if sum(map(bool, (search.settings, search.grid, search.space))) != 1:
        raise UserError(f"{path}: give one of settings, grid and space")
    defaults = yaml.load(PARAMS)
    for changes in examples:
        content = copy.deepcopy(defaults)
        for key, value in (search.fixed | changes).items():
            section, _, last = key.partition(".")
            content.setdefault(section, {})[last] = value
        params = check(content, f"{path} with {changes}")
        if not search.settings and not (params.data.validation_size and len(search.targets) == 1):
            raise UserError(f"{path}: a search needs one target, and data.validation_size above 0 in fixed")
        if "train.seed" in search.fixed | changes:
            raise UserError(f"{path}: train.seed is what seeds are for")
    return search
