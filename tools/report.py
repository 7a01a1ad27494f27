"""Write the generated parts of README and docs: tables, pictures, the page to explore, the machine."""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common.errors import UserError, run
from stages.common.files import write_bytes
from stages.params import Params, load_all
from sweeps import results
from tools import picture
from tools.classes import Predictions, calibration_table, change_table, class_table, pair_table
from tools.machine import COMMITTED, newly_trained
from tools.metrics import read_json, require_finished
from tools.models import MODELS, parameter_counts
from tools.tables import evidence_table, filter_table, parameter_table, results_table

METRICS = Path("metrics")
TURNED = Path("docs/turned.png")
EXPLORER = Path("explorer/filters.html"), Path("docs/explorer.html")  # the stage's, and the committed one
# the sections that a page must have; it may have others, such as those of the sweeps
PAGES = {
    Path("README.md"): {"results"},
    Path("docs/findings.md"): {
        *("results", "classes", "pairs", "changes", "calibration", "evidence", "filters"),
    },
    Path("docs/parameters.md"): {"parameters"},
    Path("docs/performance.md"): set[str](),
}
GAINS = (("cnn", "augmented"), ("augmented", "regularized"), ("cnn", "regularized"))
NAME = r"([a-z]+(?: [\w.-]+)?)"
SECTION = re.compile(rf"<!-- {NAME} -->.*?<!-- /\1 -->", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if something is stale")
    check = parser.parse_args().check

    metrics = read_metrics(METRICS)
    predictions = {model: read_json(METRICS / "predictions" / f"{model}.json") for model in MODELS}
    if any(answers["actual"] != predictions[MODELS[0]]["actual"] for answers in predictions.values()):
        raise UserError(f"{METRICS}/predictions are not all of the same test images: run 'dvc repro'")
    seeds = over_seeds(metrics)
    contents = sections(metrics, predictions, load_all(), seeds)
    before = {page: page.read_text(encoding="utf-8") for page in PAGES}
    after = {page: fill(text, contents, page) for page, text in before.items()}
    charts = picture.charts(metrics, predictions, seeds)
    charts[TURNED] = picture.disagreements(predictions, "cnn", "regularized")
    if EXPLORER[0].exists():
        after[EXPLORER[1]] = EXPLORER[0].read_text(encoding="utf-8")
        before[EXPLORER[1]] = EXPLORER[1].read_text(encoding="utf-8") if EXPLORER[1].exists() else ""
    if machines := newly_trained(MODELS):
        after[COMMITTED], before[COMMITTED] = machines, ""

    stale = [page for page in after if after[page] != before[page]]
    stale += [path for path, chart in charts.items() if not picture.is_drawn_from(chart, path)]
    if check and stale:
        sys.exit(f"stale: {' and '.join(map(str, stale))}: run 'make readme'")
    for path in stale:
        if path == TURNED:
            picture.draw_disagreements(charts[path], path)
        elif path in charts:
            picture.draw(charts[path], path)
        else:
            write_bytes(path, after[path].encode())
    print(f"written: {', '.join(map(str, stale))}" if stale else "nothing to write")


def read_metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """The metrics of each model.

    Raises:
        UserError: a model has none, or those of a training that has not ended.
    """
    metrics = {}
    for model in MODELS:
        path = folder / f"{model}.json"
        metrics[model] = read_json(path)
        require_finished(metrics[model], str(path))
    return metrics


def over_seeds(metrics: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame | None:
    """The models of ``metrics`` over the seeds, as `results.frame` has them, a row for each model and seed.

    A model is among them if one of its seeds has the very accuracy of ``metrics``: else these are of
    another training, and the seeds say nothing of it. None where there is no such model.
    """
    path = results.RESULTS / "seeds.json"
    if not path.exists():
        return None
    rows = results.frame(results.load(path)).query("number == 0")
    now = rows["model"].map({model: content["test_accuracy"] for model, content in metrics.items()})
    same = rows[rows["test_accuracy"] == now]["model"]
    return rows[rows["model"].isin(same)] if len(same) else None


def sections(
    metrics: Mapping[str, Mapping[str, Any]],
    predictions: Predictions,
    params: Params,
    seeds: pd.DataFrame | None,
) -> dict[str, str]:
    """All generated sections, by name.

    Raises:
        UserError: ``metrics/download.json`` or ``metrics/filters.json`` is missing.
    """
    filters = read_json(METRICS / "filters.json")
    note = archive_note(read_json(METRICS / "download.json")["archive_md5"][0], params.data.md5)
    sweeps = {path.stem: results.load(path) for path in results.RESULTS.glob("*.json")}
    generated = {
        "results": f"{results_table(metrics, parameter_counts(), seeds)}\n\n{note}".rstrip(),
        "classes": class_table(predictions),
        "pairs": pair_table(predictions),
        "changes": change_table(predictions, "cnn", ("augmented", "regularized")),
        "calibration": calibration_table(predictions),
        "evidence": evidence_table(filters),
        "filters": filter_table(filters),
        "parameters": parameter_table(params),
    }
    if "seeds" in sweeps and "classes" in results.frame(sweeps["seeds"]):
        generated["gains"] = results.gains(sweeps["seeds"], GAINS)
    return generated | {f"sweep {name}": results.table(content) for name, content in sweeps.items()}


def archive_note(used: str | None, official: str) -> str:
    """A sentence about the images where they are not from the official archive, else nothing.

    ``used`` is the MD5 of the archive that was read, None for synthetic images.
    """
    if used is None:
        return "These results come from synthetic images, not from CIFAR-10."
    if used == official:
        return ""
    return f"These results come from an archive with the MD5 `{used}`; the official archive has `{official}`."


def fill(text: str, contents: Mapping[str, str], page: Path) -> str:
    """``text`` of ``page`` with ``contents[name]`` between ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        UserError: one of the two markers is missing, or nothing is generated under that name.
    """
    names = set(SECTION.findall(text))
    single = re.findall(rf"<!-- /?{NAME} -->", SECTION.sub("", text))
    for name in [*single, *sorted(PAGES[page] - names)]:
        raise UserError(
            f"{page} has no <!-- {name} --> followed by <!-- /{name} -->: put both where it belongs"
        )
    for name in sorted(names - contents.keys()):
        known = ", ".join(sorted(contents))
        raise UserError(f"{page} has <!-- {name} -->, but must have one of what is generated: {known}")
    return SECTION.sub(
        lambda match: f"<!-- {match[1]} -->\n\n{contents[match[1]]}\n\n<!-- /{match[1]} -->", text
    )


if __name__ == "__main__":
    run(main)
