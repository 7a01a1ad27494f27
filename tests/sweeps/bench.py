"""What sweeps cost beside training: ``python -m tests.sweeps.bench`` (needs PostgreSQL).

First, how many workers one database serves: they are processes that sleep instead of training, and share
this machine with the database. Then, with ``--trial``, what each command of one trial takes.
"""

import argparse
import multiprocessing
import os
import random
import subprocess
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from itertools import product
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd

from sweeps import trial
from sweeps.progress import Progress, State
from sweeps.search import Search
from sweeps.storage import connect, parse
from sweeps.trial import Checkout
from sweeps.worker import Worker
from tests.sweeps.support import fake_project, postgres
from tools.git import commit_of


def progress_of(study: optuna.Study, search: Search, folder: Path) -> Progress:
    """``search`` in ``study``; experiments count as made."""
    checkout = Checkout("bench", "", None, folder)
    checkout.missing = lambda experiments: []  # type: ignore[method-assign]
    return Progress(study, search, checkout)


def serve(
    url: str, name: str, search: Search, rest: float, seconds: float, times: "Queue[tuple[str, float]]"
) -> None:
    """Run trials that sleep ``rest`` seconds for ``seconds``; put each call's duration into ``times``."""
    quiet()
    storage, lock = connect(parse(url))
    study = optuna.load_study(study_name=name, storage=storage)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        worker = Worker(progress_of(study, search, Path(folder)), lock, 30)
        time.sleep(random.uniform(0, rest))
        end = time.monotonic() + seconds
        while (begin := time.monotonic()) < end:
            attempts = worker.progress.attempts()
            states = worker.progress.states(attempts)
            left = {name: attempts[name] for name, state in states.items() if state == State.LEFT}
            chosen = worker.choose(left, worker.bury_the_dead())
            assert chosen
            worker.enqueue(chosen, attempts[chosen])
            running = study.ask()
            times.put(("ask", time.monotonic() - begin))
            for epoch in (1, 2):
                time.sleep(rest / 2)
                begin = time.monotonic()
                running.report(0.5, epoch)
                running.should_prune()
                times.put(("report", time.monotonic() - begin))
            begin = time.monotonic()
            study.tell(running, 0.5)
            times.put(("tell", time.monotonic() - begin))


def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.simplefilter("ignore")


def measure(url: str, workers: int, finished: int, rest: float, seconds: float) -> dict[str, list[float]]:
    """The durations of each call in seconds, with so many ``workers``, and trials ``finished`` before."""
    name = f"{workers}-{finished}-{rest}-{time.time()}"
    study = optuna.create_study(study_name=name, storage=connect(parse(url))[0], direction="maximize")
    settings: dict[str, dict[str, float]] = {f"n{number}": {} for number in range(finished + 100 * workers)}
    search = Search(targets=["train_cnn"], seeds=[0], settings=settings)
    for setting in [*settings][:finished]:
        setup = search.setup(search.planned_trials()[f"{setting}-s0"])
        attributes = {"name": f"{setting}-s0", "setup": setup}
        study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs=attributes))
    fork = multiprocessing.get_context("fork")
    times: Queue[tuple[str, float]] = fork.Queue()
    arguments = (url, name, search, rest, seconds, times)
    processes = [fork.Process(target=serve, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    durations = defaultdict(list)
    while any(process.is_alive() for process in processes) or not times.empty():
        with suppress(Empty):
            call, duration = times.get(timeout=0.2)
            durations[call].append(duration)
    return durations


def trial_costs(folder: Path) -> pd.DataFrame:
    """Seconds and processor seconds of each Git and DVC command of one trial, with a training of no time."""
    store = folder / "store"
    project = fake_project(folder / "project", f"    remote = s\n['remote \"s\"']\n    url = {store}\n")
    os.environ["FAKE_LOG"] = str(folder / "log")
    subprocess.run(["git", "clone", "-q", "--bare", project, folder / "remote.git"], check=True)
    subprocess.run(["git", "remote", "add", "origin", folder / "remote.git"], cwd=project, check=True)
    costs: list[tuple[str, str, float, float]] = []
    part = "before the first"

    def timed(call: Callable[..., Any], skip: int, name: str) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            begin, before = time.monotonic(), os.times()
            result = call(*args, **options)
            spent = [os.times()[index] - before[index] for index in (2, 3)]  # of finished children
            words = " ".join([name, *args[skip : skip + 2]]) if name == "dvc" else "git"
            costs.append((part, words.removesuffix(" -n"), time.monotonic() - begin, sum(spent)))
            return result

        return run

    trial.output, trial.git = timed(trial.output, 0, "git"), timed(trial.git, 0, "git")  # type: ignore
    trial.dvc = timed(trial.dvc, 2, "dvc")
    os.chdir(project)
    checkout = Checkout("bench", commit_of("HEAD"), "origin", folder / "kept")
    checkout.try_way({}, ["train_regularized"])
    part = "a trial"
    checkout.missing(["bench-a-s0"])
    changes = {"train.learning_rate": 0.001, "reg.dropout": 0.3}
    stages, log = ["train_regularized"], checkout.log("bench-a-s0", 0)
    with checkout.clone("bench-a-s0") as clone:
        checkout.train(clone, "bench-a-s0", changes, stages, log, lambda clone, log: None)
        checkout.hand_over(clone, "bench-a-s0", stages, log)
    rows = pd.DataFrame(costs, columns=["", "command", "s", "CPU s"])
    return rows.groupby(["", "command"], sort=False).sum().reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--storage", help="a database's URL; without it, a PostgreSQL is started")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--finished", type=int, nargs="+", default=[0])
    parser.add_argument("--rest", type=float, nargs="+", default=[4.0], help="seconds that a trial sleeps")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--trial", action="store_true", help="the commands of one trial instead")
    arguments = parser.parse_args()
    quiet()
    if arguments.trial:
        with tempfile.TemporaryDirectory() as folder:
            print(trial_costs(Path(folder)).to_markdown(index=False, floatfmt=".2f"))
        return
    rows = []
    with nullcontext(SimpleNamespace(url=arguments.storage)) if arguments.storage else postgres() as server:
        for workers, finished, rest in product(arguments.workers, arguments.finished, arguments.rest):
            durations = measure(server.url, workers, finished, rest, arguments.seconds)
            rate = len(durations["tell"]) / (arguments.seconds + rest)
            row = {"workers": workers, "finished": finished, "sleep, s": rest, "trials per s": f"{rate:.1f}"}
            for call in ("ask", "report", "tell"):
                median, most = pd.Series(durations[call]).quantile([0.5, 0.95]) * 1000
                row[f"{call}, ms"] = f"{median:.0f} / {most:.0f}"
            rows.append(row)
    print(pd.DataFrame(rows).to_markdown(index=False))


if __name__ == "__main__":
    main()
