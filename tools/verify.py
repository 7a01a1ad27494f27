"""Compare the models here with the committed ones: the same bytes, the same within chance, or different."""

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from stages.common.errors import UserError, run
from stages.common.snapshot import md5_of
from sweeps import results
from tools.git import commit_of, git, show
from tools.machine import COMMITTED, differences, machine
from tools.metrics import read_json, require_finished
from tools.models import MODELS

Lock = Mapping[str, Mapping[str, str]]  # of each stage: each output, and its MD5
SEEDS = results.RESULTS / "seeds.json"
LIMIT = 3.0  # deviations; they are known from few seeds: of 60 reruns about one lies further off by chance
# from the best to the worst
SAME, CHANCE = "same bytes", "same within what another seed does"
ABSENT, UNKNOWN, OTHER = "not here", "not committed", "different"
VERDICTS = (SAME, CHANCE, ABSENT, UNKNOWN, OTHER)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument(
        "revision", nargs="?", default="HEAD", help="the commit to compare with (default: HEAD)"
    )
    commit = commit_of(parser.parse_args().revision)
    deviation = deviation_between_seeds(commit)
    lock = recorded(commit)
    rows = pd.DataFrame([compare(model, commit, lock, deviation) for model in MODELS])
    shown = rows.astype(object).where(rows.notna(), None)
    print(shown.to_markdown(index=False, floatfmt=("", ".4f", ".4f", "+.4f", ".1f", ""), missingval=""))
    others = list(rows["model"][rows["verdict"].isin([CHANCE, OTHER])])
    if others:
        print("", *other_inputs(commit, lock), *other_machines(others, commit), sep="\n")
    worst = max(rows["verdict"], key=VERDICTS.index)
    which = "" if worst == SAME else f": {', '.join(rows['model'][rows['verdict'] == worst])}"
    remedy = " (run 'dvc repro' first)" if worst == ABSENT else ""
    print(f"\n{worst}{which}{remedy}")
    sys.exit(VERDICTS.index(worst) > VERDICTS.index(CHANCE))


def compare(model: str, commit: str, lock: Lock, deviation: float) -> dict[str, Any]:
    """The row of ``model``: its test accuracy at ``commit`` and here, and what is to be thought of them.

    ``lock`` is what `recorded` gives of ``commit``.
    ``deviations`` is their difference in units of ``deviation``, that of the difference between two seeds.

    Raises:
        UserError: its training here has not ended.
    """
    row = {"model": model, "committed": None, "here": None, "difference": None, "deviations": None}
    path, outputs = Path(f"metrics/{model}.json"), lock.get(f"train_{model}")
    committed = show(commit, path.as_posix())
    if not outputs or committed is None:
        return row | {"verdict": UNKNOWN}
    row["committed"] = there = json.loads(committed)["test_accuracy"]
    if not all(Path(output).exists() for output in outputs):
        return row | {"verdict": ABSENT}
    metrics = read_json(path)
    require_finished(metrics, str(path))
    row["here"] = here = metrics["test_accuracy"]
    if all(md5_of(Path(output)) == md5 for output, md5 in outputs.items()):
        return row | {"verdict": SAME}
    row["difference"] = here - there
    row["deviations"] = deviations = abs(here - there) / deviation
    return row | {"verdict": CHANCE if deviations <= LIMIT else OTHER}


def recorded(commit: str) -> Lock:
    """The MD5 of each output of each stage that ``dvc.lock`` has at ``commit``."""
    stages = (yaml.safe_load(show(commit, "dvc.lock") or "") or {}).get("stages", {})
    return {
        stage: {output["path"]: output["md5"] for output in entry["outs"]} for stage, entry in stages.items()
    }


def deviation_between_seeds(commit: str) -> float:
    """Standard deviation of the difference of two seeds' test accuracies, by the seeds that ``commit`` has.

    One for all models, since it is better known from all of them than from the few seeds of each.

    Raises:
        UserError: the commit has no such results.
    """
    content = show(commit, SEEDS.as_posix())
    if content is None:
        raise UserError(f"{SEEDS} is missing at {commit[:10]}, and with it what another seed does")
    deviations = results.summary(json.loads(content))["deviation"]
    return math.sqrt(2 * float((deviations**2).mean()))


def other_inputs(commit: str, lock: Lock) -> Iterator[str]:
    """Lines on what the models here were made from, where it is not what it was at ``commit``."""
    changed = git(
        "diff", "--name-only", "--relative", commit, "--", "params.yaml", "dvc.yaml", "stages"
    ).stdout
    if changed:
        yield f"changed here: {', '.join(changed.split())}"
    for output, md5 in lock.get("download", {}).items():
        if output.startswith("data/") and Path(output).exists() and md5_of(Path(output)) != md5:
            yield f"other images: {output}"


def other_machines(models: Iterable[str], commit: str) -> Iterator[str]:
    """Lines on what differs between the machines that trained ``models`` at ``commit`` and here."""
    there: Mapping[str, Any] = json.loads(show(commit, COMMITTED.as_posix()) or "{}")
    found = defaultdict(list)
    for model in models:
        here = machine(model)
        if model not in there or here is None:
            where = f"at {commit[:10]}" if model not in there else "here (DVC restored the model)"
            found[f"its machine is not known {where}"].append(model)
        else:
            found["; ".join(differences(there[model], here)) or "the same machine"].append(model)
    for line, names in found.items():
        yield f"{', '.join(names)}: {line}"


if __name__ == "__main__":
    run(main)
