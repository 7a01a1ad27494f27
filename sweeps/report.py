"""The report of a sweep: its results as JSON, a table and a picture."""

from typing import Any

import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure

from stages.common.errors import UserError
from stages.common.files import write_json
from stages.drawing.figures import save_figure
from sweeps.results import RESULTS, summary, table
from sweeps.search import Search
from sweeps.trial import Checkout


def report(name: str, study: optuna.Study, search: Search, checkout: Checkout) -> str:
    """Write the results of the completed trials to ``sweeps/results`` and return the table.

    All metrics come from the experiments. Those of a search leave out the test set's.
    """
    completed = {t.user_attrs["name"]: t for t in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])}
    if not completed:
        raise UserError(f"no trial of {name} has completed")
    checkout.fetch(name)
    settings: dict[str, Any] = {}
    for trial, (setting, changes, seeds) in search.planned_trials().items():
        for seed in seeds if trial in completed else ():
            entry = {"changes": changes | search.suggest(completed[trial]), "seeds": {}}
            result: dict[str, Any] = {"experiment": f"{name}-{setting}-s{seed}"}
            settings.setdefault(setting, entry)["seeds"][seed] = result
            for stage in search.targets:
                metrics = checkout.metrics(result["experiment"], stage)
                result[stage] = {key: metrics[key] for key in metrics if search.settings or "test" not in key}
    metric = "test_accuracy" if search.settings else "validation_accuracy"
    content = {"study": name, "commit": checkout.commit, "metric": metric, "fixed": search.fixed}
    content["settings"] = settings
    write_json(RESULTS / f"{name}.json", content)
    save_figure(draw(study, search, content), RESULTS / f"{name}.png")
    return table(content)


def draw(study: optuna.Study, search: Search, content: dict[str, Any]) -> Figure:
    """For a ``space`` Optuna's picture, its trials along each axis; else means and deviations."""
    if search.space:
        optuna.visualization.matplotlib.plot_slice(study)
        pyplot.gcf().autofmt_xdate(rotation=45, which="both")  # on a logarithmic axis they overlap
        return pyplot.gcf()
    rows = summary(content)
    figure = Figure(figsize=(7, 1 + len(rows) / 4), layout="constrained")
    axes = figure.subplots()
    labels = rows["model"] + ", " + rows["setting"]
    axes.errorbar(rows["mean"], labels, xerr=rows["deviation"], fmt="o", capsize=3)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    label = f"{content['metric']}, mean and deviation over seeds".replace("_", " ")
    figure.supxlabel(label, fontsize="medium")
    return figure
