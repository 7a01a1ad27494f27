"""A search file: which settings are tried, with which seeds; checked before anything runs."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from math import nextafter, prod
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import optuna
import yaml
from pydantic import Field

from stages.common.errors import UserError
from stages.common.params import Schema, check, key, read
from sweeps.pipeline import Pipeline, digest, with_changes
from tools.models import MODELS

TRAININGS = [f"train_{model}" for model in MODELS]
Training = Annotated[str, Field(pattern=f"^({'|'.join(TRAININGS)})$")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Name = Annotated[str, Field(pattern=r"^\w{1,60}$")]
Key = Annotated[str, Field(pattern=r"^\w+\.\w+$")]
Changes = dict[Key, Any]
Values = Annotated[list[Any], Field(min_length=1)]
# Those of Optuna's that need neither another package nor another sampler or pruner
SAMPLERS = ("TPESampler", "RandomSampler", "NSGAIISampler", "NSGAIIISampler")
PRUNERS = (
    "MedianPruner",
    "PercentilePruner",
    "SuccessiveHalvingPruner",
    "HyperbandPruner",
    "ThresholdPruner",
)
One = Field(min_length=1, max_length=1)
Call = Annotated[dict[str, dict[str, Any]], One]
Sampler = Annotated[dict[Annotated[str, Field(pattern=f"^({'|'.join(SAMPLERS)})$")], dict[str, Any]], One]
Pruner = Annotated[dict[Annotated[str, Field(pattern=f"^({'|'.join(PRUNERS)})$")], dict[str, Any]], One]
USED = {"settings": set[str](), "grid": {"pruner"}, "space": {"trials", "sampler", "pruner"}}
REHEARSED = 60  # trials before a search with options: more than a first population of Optuna's samplers
MOST = 1000  # combinations that are checked before a search
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class Plan(NamedTuple):
    """A planned trial: its setting's name, what is known before of its changes, its seeds, run one by one."""

    setting: str
    changes: Changes
    seeds: list[int]


class Search(Schema):
    """One of ``settings`` (only reported), ``grid`` and ``space``; ``USED`` says which keys go with each.

    Samplers and pruners have their names in Optuna, the axes of ``space`` what follows ``suggest_`` there.
    """

    targets: list[Training] = key("stages", f"a list of trainings: {', '.join(TRAININGS)}", min_length=1)
    seeds: list[Seed] = key("train.seed", "a list of whole numbers from 0 to 4294967295", min_length=1)
    fixed: Changes = key("in all settings", "parameters and values, {train.epochs: 8}", default={})
    settings: dict[Name, Changes] = key("named", "{name: changes}, names such as off in quotes", default={})
    grid: dict[Key, Values] = key("combined", "parameters and lists, {reg.dropout: [0, 0.1]}", default={})
    space: dict[Key, Call] = key("sampled", "{reg.dropout: {float: {low: 0, high: 0.2}}}", default={})
    trials: int | None = key("in the space", "a whole number above 0", default=None, ge=1)
    sampler: Sampler | None = key(
        "Optuna's", f"one of {', '.join(SAMPLERS)}: {{TPESampler: {{multivariate: true}}}}", default=None
    )
    pruner: Pruner | None = key(
        "Optuna's", f"one of {', '.join(PRUNERS)}: {{MedianPruner: {{n_warmup_steps: 2}}}}", default=None
    )

    def planned_trials(self) -> dict[str, Plan]:
        """Each trial by name."""
        if self.settings:  # nothing is compared on the way: a trial for each seed
            pairs = itertools.product(self.settings.items(), self.seeds)
            return {f"{name}-s{seed}": Plan(name, changes, [seed]) for (name, changes), seed in pairs}
        rows = enumerate(combinations(self.grid) * (self.trials or 1))
        return {f"{number:04}": Plan(f"{number:04}", changes, self.seeds) for number, changes in rows}

    @property
    def metric(self) -> str:
        """What settings are compared by: as soon as images are held out, the test set stays unseen."""
        return "validation_accuracy" if self.fixed.get("data.validation_size") else "test_accuracy"

    @property
    def shared(self) -> Any:
        """What all trials have in common, and what is chosen by. With another one another study begins."""
        return [self.fixed, self.space, [] if self.settings else self.seeds]

    def setup(self, plan: Plan) -> str:
        """What tells a planned trial from others: where the search file changes it, it is another one."""
        return digest(plan)[:8]

    def suggest(self, trial: optuna.trial.BaseTrial) -> Changes:
        """What the sampler chooses in ``trial``: nothing without a ``space``."""
        axes = [(key, *call) for key, axis in self.space.items() for call in axis.items()]
        return {key: getattr(trial, f"suggest_{kind}")(key, **arguments) for key, kind, arguments in axes}

    def prepare(self, study: optuna.Study) -> None:
        """Give ``study`` its sampler and pruner. The sampler's seed counts where no trial was before."""
        ((sampler, options),) = (self.sampler or {"TPESampler": {}}).items()
        ((pruner, pruning),) = (self.pruner or {"NopPruner": {}}).items()
        study.sampler = getattr(optuna.samplers, sampler)(**options)
        study.pruner = getattr(optuna.pruners, pruner)(**pruning)
        if study.get_trials(deepcopy=False):  # else it would draw once more what it has drawn
            study.sampler.reseed_rng()

    def examples(self) -> list[Changes]:
        """Changes that stand for all: those of the planned trials, or the corners of the ``space``.

        Where a space has more than ``MOST`` corners, each value beside the first ones of the other axes.
        """
        self.suggest(probe := optuna.create_study().ask())
        axes = {key: _examples(axis) for key, axis in probe.distributions.items()}
        if not axes:
            return [plan.changes for plan in self.planned_trials().values()]
        if prod(map(len, axes.values())) <= MOST:
            return combinations(axes)
        first = {key: values[0] for key, values in axes.items()}
        return [first | {key: value} for key, values in axes.items() for value in values]


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
        _check_keys(search)
        study = optuna.create_study()
        search.prepare(study)
        given = [options for call in (search.sampler, search.pruner) for options in (call or {}).values()]
        for number in range(REHEARSED if any(given) else 2):  # they say late that they can't go on so
            search.suggest(trial := study.ask())
            for epoch in range(1, 6):
                trial.report(1 / (number + epoch), epoch)
                trial.should_prune()
            study.tell(trial, 1 / (number + 5))
        examples = search.examples()
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except Exception as error:  # whatever YAML and Optuna raise
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    content = read()
    for changes in examples:
        check_all(with_changes(content, search.fixed | changes), f"{path} with {changes}")
        if not search.settings and not (
            search.fixed.get("data.validation_size") and len(search.targets) == 1
        ):
            raise UserError(f"{path}: a search needs one target, and data.validation_size above 0 in fixed")
    pipeline = Pipeline(search.targets)
    if unread := [key for key in search.fixed | _axes(search) if not pipeline.reads(key)]:
        where = ", ".join(search.targets)
        raise UserError(f"{path}: {unread[0]} is read by none of {where}: it would change nothing")
    return search


def _check_keys(search: Search) -> None:
    """What each key may be beside the others.

    Raises:
        UserError: naming the key.
    """
    kinds = [kind for kind in USED if getattr(search, kind)]
    if len(kinds) != 1:
        raise UserError("give one of settings, grid and space")
    (kind,) = kinds
    for name in sorted(search.model_fields_set - {"targets", "seeds", "fixed", kind} - USED[kind]):
        raise UserError(f"{name} means nothing with {kind}: remove it")
    if kind == "space" and not search.trials:
        raise UserError("trials is missing: it must be a whole number above 0")
    lists: dict[str, list[Any]] = {"targets": search.targets, "seeds": search.seeds}
    for name, values in (lists | {f"grid.{name}": values for name, values in search.grid.items()}).items():
        if repeated := _repeated([json.dumps(value) for value in values]):  # where true is not 1
            raise UserError(f"{name} has {repeated} twice")
    axes = _axes(search)
    for name in axes.keys() & search.fixed.keys() if not search.settings else ():
        raise UserError(f"{name} is in fixed and in {kind}: leave it in one of them")
    if "train.seed" in axes | search.fixed:
        raise UserError("train.seed is what seeds are for")
    for name, call in search.space.items():
        for choice in call.get("categorical", {}).get("choices", ()):
            if not isinstance(choice, None | bool | int | float | str):
                raise UserError(
                    f"space.{name} has the choice {choice}, but Optuna takes no lists: use a grid"
                )


def _repeated(words: Sequence[str]) -> str | None:
    """The first of ``words`` that is there twice."""
    return next((word for word in words if words.count(word) > 1), None)


def _axes(search: Search) -> dict[str, Any]:
    """All parameters that differ between trials, with some value."""
    named = {key: value for changes in search.settings.values() for key, value in changes.items()}
    return {**search.grid, **search.space, **named}


def _check_yaml(node: Any, path: Path) -> None:
    """Refuse what PyYAML, which reads YAML 1.1, would silently take for something else.

    Raises:
        UserError: a number such as ``5e-05``, which would be text, or a key that is there twice.
    """
    if isinstance(node, yaml.CollectionNode):
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        if (repeated := _repeated(keys)) is not None:
            raise UserError(f"{path}: the key {repeated} is there twice")
        for part in node.value:
            _check_yaml(part[1] if keys else part, path)
    elif node and node.tag.endswith(":str") and not node.style and NUMBER.fullmatch(node.value):
        number = yaml.safe_dump(float(node.value)).split()[0]
        raise UserError(f"{path}: {node.value} is text in YAML 1.1: write {number}")
