"""Compare the models here with the committed ones: the same bytes, the same within chance, or different."""

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from stages.common.errors import UserError, run
from stages.common.snapshot import md5_of
from sweeps import results
from tools.git import commit_of, git, show
from tools.machine import COMMITTED, differences, machine
from tools.metrics import require_finished
from tools.models import MODELS

SEEDS = results.RESULTS / "seeds.json"
LIMIT = 3.0  # deviations; they are known from few seeds, and so not well
# from the best to the worst
SAME, CHANCE, ABSENT, OTHER = "same bytes", "same within what another seed does", "not here", "different"
VERDICTS = (SAME, CHANCE, ABSENT, OTHER)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument(
        "revision", nargs="?", default="HEAD", help="the commit to compare with (default: HEAD)"
    )
    revision = parser.parse_args().revision
    commit = commit_of(revision)
    rows = pd.DataFrame([compare(model, commit) for model in MODELS])
    shown = rows.astype(object).where(rows.notna(), None)
    print(shown.to_markdown(index=False, floatfmt=("", ".4f", ".4f", "+.4f", ".1f", ""), missingval=""))
    if (rows["verdict"] != SAME).any():
        print("", *other_inputs(commit), *other_machines(commit), sep="\n")
    worst = max(rows["verdict"], key=VERDICTS.index)
    which = "" if worst == SAME else f": {', '.join(rows['model'][rows['verdict'] == worst])}"
    remedy = " (run 'dvc repro' first)" if worst == ABSENT else ""
    print(f"\n{worst}{which}{remedy}")
    sys.exit(VERDICTS.index(worst) > VERDICTS.index(CHANCE))


def compare(model: str, commit: str) -> dict[str, Any]:
    """The row of ``model``: its test accuracy at ``commit`` and here, and what is to be thought of them.

    ``deviations`` is the difference in standard deviations of the difference between two seeds.

    Raises:
        UserError: it was not recorded at ``commit``, or its training here has not ended.
    """
    outputs = recorded(commit, f"train_{model}")
    path = Path(f"metrics/{model}.json")
    there = json.loads(show(commit, str(path)) or "{}").get("test_accuracy", math.nan)
    row = {"model": model, "committed": there, "here": None, "difference": None, "deviations": None}
    if not all(Path(output).exists() for output in outputs):
        return row | {"verdict": ABSENT}
    metrics = json.loads(path.read_text(encoding="utf-8"))
    require_finished(metrics, str(path))
    row["here"] = here = metrics["test_accuracy"]
    if all(md5_of(Path(output)) == md5 for output, md5 in outputs.items()):
        return row | {"verdict": SAME}
    row["difference"] = here - there
    row["deviations"] = deviations = abs(here - there) / deviation_between_seeds(model)
    return row | {"verdict": CHANCE if deviations <= LIMIT else OTHER}


def recorded(commit: str, stage: str) -> dict[str, str]:
    """The MD5 of each output of ``stage``, as ``dvc.lock`` has them at ``commit``.

    Raises:
        UserError: it has none.
    """
    stages = (yaml.safe_load(show(commit, "dvc.lock") or "") or {}).get("stages", {})
    if stage not in stages:
        raise UserError(f"dvc.lock at {commit[:10]} does not have {stage}: compare with another commit")
    return {output["path"]: output["md5"] for output in stages[stage]["outs"]}


def deviation_between_seeds(model: str) -> float:
    """Standard deviation of the difference of the test accuracies of two seeds; NaN where it is not known."""
    rows = results.summary(results.load(SEEDS)).set_index("model")["deviation"]
    return float(rows.get(model, math.nan)) * math.sqrt(2)


def other_inputs(commit: str) -> Iterator[str]:
    """Lines on what the models here were made from, where it is not what it was at ``commit``."""
    changed = git(
        "diff", "--name-only", "--relative", commit, "--", "params.yaml", "dvc.yaml", "stages"
    ).stdout
    if changed:
        yield f"changed here: {', '.join(changed.split())}"
    for output, md5 in recorded(commit, "download").items():
        if output.startswith("data/") and Path(output).exists() and md5_of(Path(output)) != md5:
            yield f"other images: {output}"


def other_machines(commit: str) -> Iterator[str]:
    """Lines on what differs between the machines that trained the models at ``commit`` and here."""
    there: Mapping[str, Any] = json.loads(show(commit, str(COMMITTED)) or "{}")
    found = defaultdict(list)
    for model in MODELS:
        here = machine(model)
        if model not in there or here is None:
            where = f"at {commit[:10]}" if model not in there else "here (DVC restored the model)"
            found[f"its machine is not known {where}"].append(model)
        else:
            found["; ".join(differences(there[model], here)) or "the same machine"].append(model)
    for line, models in found.items():
        yield f"{', '.join(models)}: {line}"


if __name__ == "__main__":
    run(main)
