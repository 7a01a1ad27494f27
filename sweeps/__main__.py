"""Searches, ablations and seeds on one machine or many: every trial is a DVC experiment."""

import argparse
import os
import re
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import PIPE, Popen

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from tqdm import tqdm

from stages.common.errors import UserError, run
from sweeps.pipeline import Pipeline
from sweeps.progress import Progress
from sweeps.search import Search, load
from sweeps.storage import LOST, VARIABLE, connect, parse, refusal
from sweeps.trial import Checkout, guarded
from sweeps.worker import CONCLUSION, Worker
from tools.git import commit_of, forget_other_repositories, git, output

FOLDER = Path("runs/sweep")
COMMANDS = {  # what each does, and what it is given
    "run": ("run the search in a file, or go on with it", "search"),
    "worker": ("join a search that 'run' has begun, here or elsewhere, by its name", "search"),
    "status": ("show what is done, runs, failed and is left", "search"),
    "report": ("write what came out to sweeps/results/", "search"),
    "stop": ("stop a trial, and leave it out", "search", "trial"),
    "retry": ("try a trial again that failed or was stopped", "search", "trial"),
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m sweeps", allow_abbrev=False, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, (what, *operands) in COMMANDS.items():
        sub = commands.add_parser(command, help=what, description=what, allow_abbrev=False)
        for operand in operands:
            sub.add_argument(operand)
        sub.add_argument(
            "--storage",
            default=os.environ.get(VARIABLE, f"sqlite:///{FOLDER}/studies.db"),
            help=f"the studies' database; the variable {VARIABLE} has it unseen by other users",
        )
        sub.add_argument(
            "--checkpoints",
            type=Path,
            default=FOLDER,
            help=f"folder for stopped trials and logs; others go on where it is shared (default: {FOLDER})",
        )
        sub.add_argument("--tried", action="store_true", help=argparse.SUPPRESS)
        if command == "run":
            sub.add_argument(
                "--workers",
                type=int,
                default=1,
                help="that share the processors of this machine; 0: begin, for workers elsewhere",
            )
            sub.add_argument("--remote", help="Git remote for experiments; DVC's default one for their files")
            sub.add_argument("--heartbeat", type=float, help="seconds between signs of life (default: 30)")
    arguments = parser.parse_args()
    forget_other_repositories()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    url = parse(arguments.storage)
    try:
        carry_out(arguments, url)
    except LOST as error:
        raise refusal(url, error) from None


def carry_out(arguments: argparse.Namespace, url: sqlalchemy.URL) -> None:
    """Carry out a command.

    Raises:
        UserError: it can't be, or some trials failed.
    """
    command, head = arguments.command, commit_of("HEAD")
    path = Path(arguments.search)
    name, _, digest = path.name.removesuffix(".yaml").partition("@")
    if not re.fullmatch(r"[\w-]{1,60}", name):
        raise UserError(f"{name} is no name of a search: up to 60 letters, digits, _ and - are allowed")
    search = load(path) if command == "run" else None
    if search:
        if arguments.heartbeat is not None and arguments.heartbeat <= 0:
            raise UserError(f"--heartbeat is {arguments.heartbeat}, but must be above 0")
        if arguments.workers < 0:
            raise UserError(f"--workers is {arguments.workers}, but must be 0 or more")
        if arguments.remote not in (None, *(remotes := output("remote").split())):
            names = ", ".join(remotes) or "it has none"
            raise UserError(f"--remote must be the name of a Git remote of this clone: {names}")
        pipeline = Pipeline(search.targets, head)
        pipeline.require_here()
        digest = pipeline.digest(search.shared)
    storage, lock = connect(url)
    title = f"{name}@{digest}" if digest else find(name, storage, head)
    known = title in optuna.get_all_study_names(storage)
    plan = optuna.load_study(study_name=title, storage=storage).user_attrs.get("plan", {}) if known else {}
    begun = bool(plan)
    if search:
        plan = {"commit": head} | plan | {"search": search.model_dump(), "ran": time.time()}
        plan |= {
            "heartbeat": arguments.heartbeat or plan.get("heartbeat", 30),
            "remote": arguments.remote or plan.get("remote"),
        }
    elif not plan:
        raise UserError(f"the study {title} has not been run")
    search = Search.model_validate(plan["search"])
    if command == "worker" and "@" not in path.name:
        Pipeline(search.targets, head).require_here()
    if git("cat-file", "-e", plan["commit"]).returncode:
        raise UserError(f"the commit {plan['commit']} of study {title} is not here: git fetch, or clone anew")
    # the reference says in which clone it began, whose experiments others don't see, and keeps the commit
    here = ("refs/sweeps/" + title, plan["commit"])
    if begun and not plan["remote"] and git("show-ref", "--quiet", here[0]).returncode:
        raise UserError(
            f"the experiments of {title} go to another clone: work there, or run it with --remote in both"
        )
    checkout = Checkout(name, plan["commit"], plan["remote"], arguments.checkpoints / title)
    if command in ("run", "worker") and not arguments.tried:
        checkout.try_way(search.fixed, search.targets)
    study = optuna.create_study(study_name=title, storage=storage, direction="maximize", load_if_exists=True)
    search.prepare(study)
    progress = Progress(study, search, checkout)
    worker = Worker(progress, lock, plan["heartbeat"])
    if command == "run":
        output("update-ref", *here)
        study.set_user_attr("plan", plan)
        study.set_user_attr("begin", len(study.get_trials(deepcopy=False)))
        if arguments.workers == 1:
            worker.work()
        elif arguments.workers:
            work_together(worker, title, arguments)
        else:
            print(f"workers may join: python -m sweeps worker {title}")
    elif command == "worker":  # of several workers, all with the sampler's seed would draw the same
        study.sampler.reseed_rng()
        worker.work()
    elif command == "report":
        from sweeps.report import report  # imports torch and Matplotlib, which no worker needs

        print(report(progress))
    elif command == "status":
        print(progress.table())
    else:
        progress.decide(arguments.trial, again=command == "retry")


def find(name: str, storage: RDBStorage, head: str) -> str:
    """The study ``name`` of the code at ``head``: where there are several, the one run last.

    Raises:
        UserError: there is none.
    """
    studies = {
        title: optuna.load_study(study_name=title, storage=storage).user_attrs
        for title in optuna.get_all_study_names(storage)
        if title.partition("@")[0] == name
    }
    plans = {title: attributes["plan"] for title, attributes in studies.items() if "plan" in attributes}
    fit = []
    for title, plan in plans.items():
        with suppress(UserError):  # a target that is there no more
            search = Search.model_validate(plan["search"])
            digest = Pipeline(search.targets, head).digest(search.shared)
            fit += [title] if title == f"{name}@{digest}" else []
    if not fit:
        others = f": {', '.join(plans)} is of other code or parameters" if plans else ""
        raise UserError(f"{name} has not been run with the code and parameters of {head[:10]}{others}")
    return max(fit, key=lambda title: plans[title]["ran"])


def work_together(worker: Worker, title: str, arguments: argparse.Namespace) -> None:
    """Run several workers, which share the processors, and show how far all of them are.

    Raises:
        UserError: some trials failed, or are left.
        KeyboardInterrupt: after all workers have ended.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    variables = {"OMP_NUM_THREADS": str(max(1, cores // arguments.workers))} | os.environ
    variables[VARIABLE] = arguments.storage
    options = ("--tried", "--checkpoints", str(arguments.checkpoints))
    command = [sys.executable, "-m", "sweeps", "worker", title, *options]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(guarded(command, env=variables, stderr=PIPE))
            for _ in range(arguments.workers)
        ]
        readers = stack.enter_context(ThreadPoolExecutor(arguments.workers))
        for process in workers:
            readers.submit(pass_on, process)
        try:
            with worker.bar() as bar:
                while any(process.poll() is None for process in workers):
                    worker.show(bar)
                    time.sleep(1)
                shown = worker.show(bar)
        finally:
            for process in workers:
                process.terminate()
    worker.conclude(*shown)


def pass_on(worker: Popen[bytes]) -> None:
    """Print what a worker says beside the bar, but for how the search ended, which all say."""
    for line in map(bytes.decode, worker.stderr or ()):
        if CONCLUSION not in line:
            tqdm.write(line.rstrip("\n"), sys.stderr)


if __name__ == "__main__":
    run(main)
