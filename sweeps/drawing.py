"""The picture of a sweep's results."""

import json
from typing import Any

from matplotlib.figure import Figure

from sweeps.results import changed, curves, summary

MARKS: dict[str, dict[str, Any]] = {
    "ran to the end": {"marker": "o", "color": "tab:blue"},
    "pruned after so many epochs": {"marker": "x", "color": "tab:grey"},
    "failed": {"marker": "v", "color": "tab:red"},
}
DONE, PRUNED, FAILED = MARKS
Point = tuple[str, dict[str, Any], float | None, int | None]  # mark, changes, accuracy, epoch


def draw(content: dict[str, Any]) -> Figure:
    """For a ``space`` all trials along each axis; else means and deviations of the settings."""
    return _along_axes(content) if content.get("space") else _means(content)


def _means(content: dict[str, Any]) -> Figure:
    rows, pruned = summary(content), content.get("pruned", {}).values()
    names = list(rows["model"] + ", " + rows["setting"])
    names += [f"{changed(entry['changes'])}, pruned after epoch {entry['epoch']}" for entry in pruned]
    lines = curves(content)
    size = (7, 1 + len(names) / 4) if lines.empty else (11, max(3.5, 1 + len(names) / 4))
    figure = Figure(figsize=size, layout="constrained")
    axes, *panels = figure.subplots(1, 1 if lines.empty else 2, squeeze=False)[0]
    for number, (_, row) in enumerate(rows.iterrows()):
        color, style = f"C{number % 10}", "-" if number < 10 else "--"
        axes.errorbar(row["mean"], number, xerr=row["deviation"], fmt="o", capsize=3, color=color)
        for panel in panels:
            panel.plot(lines[row["number"], row["model"]], style, color=color, linewidth=1)
    for panel in panels:
        panel.set(xlabel="epoch", ylabel=f"{_words(content['metric'])}, mean over seeds")
    accuracies = [entry[content["metric"]] for entry in pruned]
    axes.plot(accuracies, range(len(rows), len(names)), linestyle="", **MARKS[PRUNED])
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"{_words(content['metric'])}, mean and deviation over seeds")
    return figure


def _along_axes(content: dict[str, Any]) -> Figure:
    space, points = content["space"], _points(content)
    columns = min(len(space), 3)
    rows = -(-len(space) // columns)
    figure = Figure(figsize=(max(5.5, 3.2 * columns), 0.7 + 2.8 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for panel in panels[len(space) :]:
        panel.remove()
    for panel, (parameter, call) in zip(panels, space.items(), strict=False):
        ((kind, arguments),) = call.items()
        panel.set_xlabel(parameter)
        if kind == "categorical":  # null, true and 1 are three choices, in the file's order
            choices = [json.dumps(choice) for choice in arguments["choices"]]
            panel.set_xticks(range(len(choices)), choices)
            panel.set_xlim(-0.5, len(choices) - 0.5)
        elif arguments.get("log"):
            panel.set_xscale("log")
        for mark, changes, accuracy, epoch in points:
            if parameter not in changes:  # it failed before anything was chosen
                continue
            value = changes[parameter]
            x = choices.index(json.dumps(value)) if kind == "categorical" else value
            if accuracy is None:  # at the lower rim
                place: dict[str, Any] = {"transform": panel.get_xaxis_transform(), "clip_on": False}
                panel.plot([x], [0], **place, **MARKS[mark])
            else:
                panel.plot([x], [accuracy], **MARKS[mark])
            if epoch:
                panel.annotate(str(epoch), (x, accuracy), (4, 3), textcoords="offset points", fontsize=7)
    for mark in MARKS:
        if any(point[0] == mark for point in points):
            panels[0].plot([], [], linestyle="", label=mark, **MARKS[mark])
    figure.legend(loc="outside upper center", ncols=len(MARKS), fontsize="small")
    figure.supylabel(_words(content["metric"]), fontsize="medium")
    return figure


def _points(content: dict[str, Any]) -> list[Point]:
    metric = content["metric"]
    means = summary(content).set_index("number")["mean"]
    points: list[Point] = []
    for number, entry in enumerate(content["settings"].values()):
        points.append((DONE, entry["changes"], means[number], None))
    for entry in content["pruned"].values():
        points.append((PRUNED, entry["changes"], entry[metric], entry["epoch"]))
    for entry in content["failed"].values():
        points.append((FAILED, entry["changes"], None, None))
    return points


def _words(name: str) -> str:
    return name.replace("_", " ")
