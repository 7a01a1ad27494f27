"""The report of a sweep: its results as JSON, a table and a picture."""

import json
from typing import Any

from stages.common.errors import UserError
from stages.common.files import write_json
from stages.drawing.figures import save_figure
from sweeps.drawing import draw
from sweeps.progress import Progress, State, has_result, made_by, why
from sweeps.results import RESULTS, table
from sweeps.trial import Checkout
from tools.classes import class_accuracies
from tools.git import show


def report(progress: Progress) -> str:
    """Write the results of the trials that are done to ``sweeps/results`` and return the table.

    All metrics come from the experiments. Where images are held out, those of the test set are left out.

    Raises:
        UserError: there are none, or an experiment is gone.
        OSError: a file can't be written.
    """
    search, checkout, attempts = progress.search, progress.checkout, progress.attempts()
    states = progress.states(attempts)
    metric = search.metric
    content: dict[str, Any] = {"study": checkout.name, "commit": checkout.commit, "metric": metric}
    content["named"] = bool(search.settings)
    content |= {"fixed": search.fixed, "space": search.space, "settings": {}, "pruned": {}, "failed": {}}
    gone = []
    for name, plan in progress.plans.items():
        if not attempts[name]:
            continue
        last, state = attempts[name][-1], states[name]
        ended = [trial for trial in attempts[name] if has_result(trial)]
        if state == State.LEFT and ended:
            gone += checkout.missing(made_by(ended[-1]))
        if state == State.DONE:
            last = next(trial for trial in reversed(ended) if not checkout.missing(made_by(trial)))
        changes = plan.changes | last.params
        if state == State.DONE:
            entry = content["settings"].setdefault(plan.setting, {"changes": changes, "seeds": {}})
            for seed, experiment in zip(plan.seeds, made_by(last), strict=True):
                entry["seeds"][seed] = {"experiment": experiment}
                for stage in search.targets:
                    metrics = checkout.metrics(experiment, stage)
                    shown = {k: metrics[k] for k in metrics if metric == "test_accuracy" or "test" not in k}
                    shown["history"] = [epoch[metric] for epoch in metrics["history"]]
                    if metric == "test_accuracy":
                        shown |= classes(checkout, experiment, stage)
                    entry["seeds"][seed][stage] = shown
        elif state == State.PRUNED:
            epoch = last.last_step or 0
            content["pruned"][name] = {"changes": changes, "epoch": epoch}
            content["pruned"][name][metric] = last.intermediate_values.get(epoch)
        elif state == State.FAILED:
            content["failed"][name] = {"changes": changes, "why": why(last)}
    if gone:
        raise UserError(f"{', '.join(gone)} is gone: run the search again to make it again")
    if not content["settings"]:
        raise UserError(f"no trial of {checkout.name} is done")
    figure, text, picture = draw(content), table(content), RESULTS / f"{checkout.name}.png"
    before = picture.read_bytes() if picture.is_file() else None
    save_figure(figure, picture)
    try:
        write_json(RESULTS / f"{checkout.name}.json", content)
    except OSError:
        picture.write_bytes(before) if before else picture.unlink()
        raise
    return text


def classes(checkout: Checkout, experiment: str, stage: str) -> dict[str, Any]:
    """The accuracy of each class in ``experiment``; empty where it has no predictions."""
    model = stage.removeprefix("train_")
    text = show(checkout.reached(experiment), f"metrics/predictions/{model}.json")
    if text is None:
        return {}
    accuracies = class_accuracies({model: json.loads(text)})[model]
    return {"classes": {name: round(share, 6) for name, share in accuracies.sort_index().items()}}
