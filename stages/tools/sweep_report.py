"""What a study found: mean and spread over seeds, as a table, a picture and JSON."""

import io
import statistics
from pathlib import Path
from typing import Any

import optuna
from matplotlib.figure import Figure
from tabulate import tabulate

from stages.study.errors import UserError
from stages.study.files import write_bytes, write_json
from stages.tools.search import Search
from stages.tools.trial import Checkout

FOLDER = Path("sweeps/results")


def report(name: str, study: optuna.Study, search: Search, checkout: Checkout) -> str:
    """Write what has finished to ``sweeps/results`` and return the table.

    All figures come from the experiments. Those of a search leave out the test set's.
    """
    done = {t.user_attrs["name"]: t for t in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))}
    if not done:
        raise UserError(f"no trial of {name} has completed")
    settings: dict[str, Any] = {}
    for trial, (setting, changes, seeds) in search.plan().items():
        for seed in seeds if trial in done else ():
            known = {"changes": changes | search.suggest(done[trial]), "seeds": {}}
            experiment = f"{name}-{setting}-s{seed}"
            metrics = {stage: checkout.metrics(experiment, stage) for stage in search.targets}
            if not search.settings:
                metrics = {s: {k: v for k, v in m.items() if "test" not in k} for s, m in metrics.items()}
            settings.setdefault(setting, known)["seeds"][seed] = {"experiment": experiment, **metrics}
    content = {"study": name, "commit": checkout.commit, "fixed": search.fixed, "settings": settings}
    write_json(FOLDER / f"{name}.json", content)

    rows: list[tuple[str, float, float, int]] = []
    metric = "test_accuracy" if search.settings else "validation_accuracy"
    for stage in search.targets:
        for setting, entry in settings.items():
            values = [seed[stage][metric] for seed in entry["seeds"].values()]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            rows.append((f"{stage} {setting}", statistics.mean(values), spread, len(values)))
    if not search.settings:
        rows.sort(key=lambda row: -row[1])
    figure, picture = Figure(figsize=(7, 1 + len(rows) / 4), layout="constrained"), io.BytesIO()
    labels, means, spreads, _ = zip(*rows[::-1], strict=True)
    axes = figure.subplots()
    axes.errorbar(means, labels, xerr=spreads, fmt="o", capsize=3)
    axes.set_xlabel(f"{metric.replace('_', ' ')}, mean and deviation over seeds")
    figure.savefig(picture)
    write_bytes(FOLDER / f"{name}.png", picture.getvalue())
    return tabulate(rows, ("", "mean", "standard deviation", "seeds"), tablefmt="pipe", floatfmt=".4f")
