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
from sweeps.search import Search
from sweeps.storage import connect
from sweeps.trial import Checkout
from sweeps.worker import Worker
from tests.sweeps.support import fake_project, postgres


def serve(
    url: str, name: str, search: Search, rest: float, seconds: float, times: "Queue[tuple[str, float]]"
) -> None:
    """Run trials that sleep ``rest`` seconds for ``seconds``; put each call's duration into ``times``."""
    quiet()
    storage = connect(url, 30)
    study = optuna.load_study(study_name=name, storage=storage)
    worker = Worker("", study, storage, search, Checkout(Path(), "", None))
    time.sleep(random.uniform(0, rest))
    end = time.monotonic() + seconds
    while (begin := time.monotonic()) < end:
        worker.enqueue(worker.trials())
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
    study = optuna.create_study(study_name=name, storage=connect(url, 30), direction="maximize")
    settings: dict[str, dict[str, float]] = {f"n{number}": {} for number in range(finished + 100 * workers)}
    search = Search(targets=["train_cnn"], seeds=[0], settings=settings)
    for setting in [*settings][:finished]:
        study.add_trial(optuna.create_trial(value=0.5, user_attrs={"name": f"{setting}-s0"}))
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
    costs: list[tuple[str, float, float]] = []

    def timed(call: Callable[..., Any], skip: int, name: str) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            begin, before = time.monotonic(), os.times()
            result = call(*args)
            spent = [os.times()[index] - before[index] for index in (2, 3)]  # of finished children
            command = [arg for arg in args[skip:] if arg[:1] not in "-/"][:2]
            costs.append((" ".join([name, *command]), time.monotonic() - begin, sum(spent)))
            return result

        return run

    trial.git, trial.dvc = timed(trial.git, 1, "git"), timed(trial.dvc, 2, "dvc")
    checkout = Checkout(project, trial.git(project, "rev-parse", "HEAD"), "origin")
    checkout.exists("bench")
    changes = {"train.learning_rate": 0.001, "reg.dropout": 0.3}
    checkout.run("bench", changes, ["train_regularized"], None)
    checkout.fetch("bench")
    return pd.DataFrame(costs, columns=["command", "s", "CPU s"])


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
