"""Searches, ablations and seeds on one machine or many: every trial is a DVC experiment."""

import argparse
import itertools
import json
import random
import re
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import optuna
from dvc.config import Config
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm import tqdm

from stages.common.errors import UserError, run
from sweeps.search import Search, load
from sweeps.storage import connect
from sweeps.trial import Checkout, Watch, git

FOLDER = Path("runs/sweep")
ATTEMPTS = 5


@dataclass
class Worker:
    """Takes trials of a study until all of its plan are done.

    Of several trials with one name, that with the lowest number that has not failed counts; the others
    are copies, dropped when they are taken.
    """

    name: str
    study: optuna.Study
    storage: BaseHeartbeat
    search: Search
    checkout: Checkout
    seen: set[int] = field(default_factory=set)

    def trials(self) -> list[FrozenTrial]:
        """The trials of the plan, as they are now."""
        return [t for t in self.study.get_trials(deepcopy=False) if t.user_attrs.get("name")]

    def enqueue(self, trials: list[FrozenTrial]) -> bool:
        """Add one trial of the plan that is not there, or failed, or lost its worker; False: none is missing.

        One at a time, since each call of Optuna's reads all that wait. How often a trial failed before
        the last ``run`` does not count.
        """
        tries: dict[str, list[FrozenTrial]] = {name: [] for name in self.search.plan()}
        for trial in trials:
            tries[trial.user_attrs["name"]].append(trial)
        begin = self.study.user_attrs.get("begin", 0)
        failed = {n: p for n, p in tries.items() if all(trial.state == TrialState.FAIL for trial in p)}
        missing = [n for n, p in failed.items() if sum(t.number >= begin for t in p) < ATTEMPTS]
        if missing:
            others = any(t.state == TrialState.RUNNING for t in trials)  # at random, lest they add the same
            name = min(missing, key=lambda name: (len(tries[name]), others and random.random()))
            past = tries[name]  # what the last one did or was to do, since one of its seeds may be done
            params = past[-1].system_attrs["fixed_params"] | past[-1].params if past else {}
            self.study.enqueue_trial(params, {"name": name})
        return bool(missing)

    def work(self) -> None:
        """Run trials until all are done.

        Raises:
            UserError: some failed again and again.
            KeyboardInterrupt: with what becomes of the running trial.
        """
        size = len(self.search.plan())
        with tqdm(desc=self.name, total=size, unit="trial", disable=None) as bar:
            while True:
                trials = self.trials()
                states = Counter(trial.state for trial in trials)
                done = states[TrialState.COMPLETE] + states[TrialState.PRUNED]
                bar.update(done - bar.n)
                if self.enqueue(trials) or states[TrialState.WAITING]:
                    self.take()
                elif states[TrialState.RUNNING]:
                    self.wait()
                else:
                    break
        if done < size:
            raise UserError(f"{size - done} trials failed {ATTEMPTS} times: run the search again to retry")

    def wait(self) -> None:
        """Fail the trials of dead workers, and wait for those of the others."""
        optuna.storages.fail_stale_trials(self.study)
        running = {trial._trial_id for trial in self.trials() if trial.state == TrialState.RUNNING}
        for trial in running - self.seen:  # Optuna never misses who was killed before the first heartbeat
            self.storage.record_heartbeat(trial)
        self.seen |= running
        time.sleep(random.uniform(0.2, 1) * (self.storage.get_heartbeat_interval() or 1))

    def take(self) -> None:
        """Run the next trial."""
        try:
            self.study.optimize(self.objective, 1, catch=(UserError,))
        except KeyboardInterrupt as stop:
            stop.args = ("stopped: the running trial is given up, and starts anew with the next worker",)
            raise
        except (AssertionError, ValueError, optuna.exceptions.UpdateFinishedTrialError) as error:
            # in a long outage others have taken this worker for dead, and its trial for lost; after an
            # objective that succeeded, Optuna asserts that this can't be
            if not re.search("Cannot tell|already finished", f"{error} {error.__context__}"):
                raise

    def objective(self, trial: Trial) -> float:
        """The mean validation accuracy of the trial's seeds, 0 where there is none."""
        alive = [t for t in self.trials() if t.number < trial.number and t.state != TrialState.FAIL]
        name = trial.user_attrs.get("name", "")
        if name in ("", *(earlier.user_attrs["name"] for earlier in alive)):
            trial.set_user_attr("name", "")  # not a try
            raise UserError("nothing to do: another worker was faster")
        setting, changes, seeds = self.search.plan()[name]
        changes = self.search.fixed | changes | self.search.suggest(trial)
        stages, values = self.search.targets, list[float]()
        watch: Watch = partial(epochs, trial, stages[0].removeprefix("train_"))
        for seed in seeds:
            experiment, start = f"{self.name}-{setting}-s{seed}", time.monotonic()
            try:
                if not self.checkout.exists(experiment):
                    self.checkout.run(experiment, changes | {"train.seed": seed}, stages, watch)
                self.checkout.fetch(experiment)
                found = self.checkout.metrics(experiment, stages[0])
            except (UserError, optuna.TrialPruned) as end:
                tqdm.write(f"{experiment}: {end}", sys.stderr)
                raise
            # without held-out images nothing is chosen, and Optuna does not see the test set's accuracy
            values.append(float(found.get("validation_accuracy", 0)))
            metric = next(key for key in ("validation_accuracy", "test_accuracy") if key in found)
            took = f"{time.monotonic() - start:.0f} s"
            tqdm.write(f"{experiment}: {took}, {metric} {found[metric]:.4f}", sys.stderr)
            watch = itertools.repeat  # only with its first seed it is pruned
        return statistics.mean(values)


def epochs(trial: Trial, model: str, clone: Path) -> Iterator[None]:
    """At each step, tell Optuna of the epochs that the training of ``model`` in ``clone`` has ended.

    Raises:
        TrialPruned: Optuna does not expect much of it.
    """
    record, seen = clone / f"runs/{model}.json", 0
    while True:
        found = json.loads(record.read_text())["epochs"] if record.exists() else []
        for epoch in found[seen:]:
            if "validation_accuracy" in epoch:
                trial.report(epoch["validation_accuracy"], epoch["epoch"])
                if trial.should_prune():
                    raise optuna.TrialPruned(f"pruned after epoch {epoch['epoch']}")
        seen = len(found)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "worker", "report"))
    parser.add_argument("study", type=Path, help="run: a search file; worker, report: its name without .yaml")
    parser.add_argument("--storage", default=f"sqlite:///{FOLDER}/studies.db", help="the studies' database")
    parser.add_argument("--remote", help="run: Git remote for experiments; DVC's default one for their files")
    parser.add_argument("--heartbeat", type=int, default=30, help="seconds; the same for all workers")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    name, _, of = asked.study.name.removesuffix(".yaml").partition("@")
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"{name} is no name of a study: letters, digits, _ and - are allowed")
    commit = git(Path(), "rev-parse", of or "HEAD")
    if asked.command != "report" and (changed := git(Path(), "diff", "--name-only", commit).split()):
        raise UserError(f"other files than in the study's commit {commit[:10]}: {' '.join(changed)}")
    search = load(asked.study) if asked.command == "run" else None
    FOLDER.mkdir(parents=True, exist_ok=True)
    storage = connect(asked.storage, asked.heartbeat)
    title = f"{name}@{commit[:10]}"
    study = optuna.create_study(study_name=title, storage=storage, direction="maximize", load_if_exists=True)
    new = search and {"search": search.model_dump(), "remote": asked.remote}
    plan = study.user_attrs.get("plan", new)
    if not plan or new not in (None, plan):
        raise UserError(f"study {title} " + ("is of another search" if new else "has not been run"))
    search, checkout = Search.model_validate(plan["search"]), Checkout(Path.cwd(), commit, plan["remote"])
    search.prepare(study)
    if asked.command == "report":
        from sweeps.report import report  # imports torch and Matplotlib, which no worker needs

        print(report(name, study, search, checkout))
        return
    for key in ("name", "email"):  # what a trial would fail by
        git(Path(), "config", f"user.{key}")
    if plan["remote"] and not Config(".dvc")["core"].get("remote"):
        raise UserError("--remote needs a default DVC remote for the files: dvc remote add -d <name> <url>")
    checkout.fetch(name)
    study.set_user_attr("plan", plan)
    if asked.command == "run":
        study.set_user_attr("begin", len(study.get_trials(deepcopy=False)))
    Worker(name, study, storage, search, checkout).work()


if __name__ == "__main__":
    run(main)
