"""Searches, ablations and seeds on one machine or many: every trial is a DVC experiment."""

import argparse
import re
import warnings
from pathlib import Path

import optuna
from dvc.config import Config

from stages.common.errors import UserError, run
from sweeps.search import Search, load
from sweeps.storage import connect
from sweeps.trial import Checkout, git
from sweeps.worker import Worker


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m sweeps", allow_abbrev=False, description=__doc__)
    parser.add_argument("command", choices=("run", "worker", "report"))
    parser.add_argument("search", type=Path, help="run: a search file; else its name without .yaml")
    parser.add_argument("--storage", default="sqlite:///runs/sweep/studies.db", help="the studies' database")
    parser.add_argument("--remote", help="run: Git remote for experiments; DVC's default one for their files")
    parser.add_argument("--heartbeat", type=int, default=30, help="seconds; the same for all workers")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    name, _, revision = arguments.search.name.removesuffix(".yaml").partition("@")
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"{name} is no name of a search: letters, digits, _ and - are allowed")
    commit = git(Path(), "rev-parse", revision or "HEAD")
    if folder := git(Path(), "rev-parse", "--show-prefix"):
        raise UserError(f"{folder} is a folder of another repository: for sweeps the project needs its own")
    if arguments.command != "report" and (changed := git(Path(), "diff", "--name-only", commit).split()):
        raise UserError(f"these files differ from the study's commit {commit[:10]}: {' '.join(changed)}")
    search = load(arguments.search) if arguments.command == "run" else None
    Path("runs/sweep").mkdir(parents=True, exist_ok=True)
    storage = connect(arguments.storage, arguments.heartbeat)
    title = f"{name}@{commit[:10]}"
    study = optuna.create_study(study_name=title, storage=storage, direction="maximize", load_if_exists=True)
    new = search and {"search": search.model_dump(), "remote": arguments.remote}
    plan = study.user_attrs.get("plan", new)
    if not plan or new not in (None, plan):
        raise UserError(f"study {title} " + ("is of another search" if new else "has not been run"))
    search, checkout = Search.model_validate(plan["search"]), Checkout(Path.cwd(), commit, plan["remote"])
    search.prepare(study)
    if arguments.command == "report":
        from sweeps.report import report  # imports torch and Matplotlib, which no worker needs

        print(report(name, study, search, checkout))
        return
    for key in ("name", "email"):  # without them a trial would fail
        git(Path(), "config", f"user.{key}")
    if plan["remote"] and not Config(".dvc")["core"].get("remote"):
        raise UserError("--remote needs a default DVC remote for the files: dvc remote add -d <name> <url>")
    checkout.fetch(name)
    study.set_user_attr("plan", plan)
    if arguments.command == "run":
        study.set_user_attr("begin", len(study.get_trials(deepcopy=False)))
    Worker(name, study, storage, search, checkout).work()


if __name__ == "__main__":
    run(main)
