"""What a study found: mean and spread over seeds, as a table, a picture and JSON."""

from typing import Any

import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure

from stages.common.errors import UserError
from stages.drawing.figures import save_figure
from stages.common.files import write_json
from tools.report import STUDIES, study_rows, study_table
from sweeps.search import Search
from sweeps.trial import Checkout


def report(name: str, study: optuna.Study, search: Search, checkout: Checkout) -> str:
    """Write what has finished to ``sweeps/results`` and return the table.

    All figures come from the experiments. Those of a search leave out the test set's.
    """
    done = {t.user_attrs["name"]: t for t in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))}
    if not done:
        raise UserError(f"no trial of {name} has completed")
    checkout.fetch(name)
    settings: dict[str, Any] = {}
    metric = "test_accuracy" if search.settings else "validation_accuracy"
    for trial, (setting, changes, seeds) in search.plan().items():
        for seed in seeds if trial in done else ():
            known = {"changes": changes | search.suggest(done[trial]), "seeds": {}}
            experiment = f"{name}-{setting}-s{seed}"
            metrics: dict[str, Any] = {stage: checkout.metrics(experiment, stage) for stage in search.targets}
            if not search.settings:
                metrics = {s: {k: v for k, v in m.items() if "test" not in k} for s, m in metrics.items()}
            settings.setdefault(setting, known)["seeds"][seed] = {"experiment": experiment, **metrics}
    about = {"study": name, "commit": checkout.commit, "metric": metric, "fixed": search.fixed}
    content = {**about, "settings": settings}
    write_json(STUDIES / f"{name}.json", content)
    save_figure(draw(study, search, content), STUDIES / f"{name}.png")
    return study_table(content)


def draw(study: optuna.Study, search: Search, content: dict[str, Any]) -> Figure:
    """For a ``space`` Optuna's picture, its trials along each axis; else each setting's mean and spread."""
    if search.space:
        optuna.visualization.matplotlib.plot_slice(study)
        pyplot.gcf().autofmt_xdate(rotation=45, which="both")  # on a logarithmic axis they overlap
        return pyplot.gcf()
    metric, rows = study_rows(content)
    figure = Figure(figsize=(7, 1 + len(rows) / 4), layout="constrained")
    axes = figure.subplots()
    labels, means = [f"{row.model}, {row.setting}" for row in rows], [row.mean for row in rows]
    axes.errorbar(means, labels, xerr=[row.deviation for row in rows], fmt="o", capsize=3)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    figure.supxlabel(f"{metric}, mean and deviation over seeds", fontsize="medium")
    return figure
