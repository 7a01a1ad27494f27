"""Run the whole pipeline on synthetic images, in the folder .quickstart, which Git ignores."""

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.common.errors import run
from stages.common.params import PARAMS
from stages.params import load_all
from tools.charts import draw, dvc
from tools.models import parameter_counts
from tools.report import read_metrics
from tools.tables import results_table

COPY = Path(".quickstart")

# small enough for two minutes on two cores, large enough for the models to come out in CIFAR-10's order
REDUCED: Mapping[str, Mapping[str, Any]] = {
    "data": {"source": "synthetic", "train_size": 2000, "test_size": 1000},
    "train": {"epochs": 7, "batch_size": 32},
}


def main() -> None:
    argparse.ArgumentParser(allow_abbrev=False, description=__doc__).parse_args()
    prepare(COPY, REDUCED)
    if status := dvc(COPY, "repro"):
        sys.exit(status)
    page = draw(COPY, [])
    print(f"\n{results_table(read_metrics(COPY / 'metrics'), parameter_counts())}\n")
    print(f"charts:    {page}")
    print(f"pictures:  {COPY / 'plots'}")
    print(f"explorer:  {COPY / 'explorer/filters.html'}")
    print("These results are of synthetic images; 'make repro' runs the same pipeline on CIFAR-10.")


def prepare(copy: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Bring what the pipeline needs in ``copy`` up to date; results that are there are kept.

    ``changes`` are sections of ``params.yaml`` with the keys that differ. The copy needs no Git.

    Raises:
        UserError: ``params.yaml`` with these changes is not valid.
    """
    for folder in ("stages", ".dvc/plots"):
        shutil.rmtree(copy / folder, ignore_errors=True)
        shutil.copytree(folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("dvc.yaml", ".dvcignore", ".dvc/config"):
        shutil.copy(file, copy / file)
    (copy / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    round_trip = YAML()
    content = round_trip.load(PARAMS)
    for section, values in changes.items():
        content[section].update(values)
    round_trip.dump(content, copy / PARAMS)
    load_all(copy / PARAMS)


if __name__ == "__main__":
    run(main)
