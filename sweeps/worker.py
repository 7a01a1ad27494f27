"""A worker: runs the trials of a study until all are done, beside others that do the same."""

import json
import random
import re
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm import tqdm

from stages.common.errors import UserError
from sweeps.search import Search
from sweeps.trial import Checkout

ATTEMPTS = 5


@dataclass
class Worker:
    """Runs the planned trials of ``search`` in ``study`` until all are done.

    Of several trials with one name, that with the lowest number that has not failed counts; the others
    are copies, dropped when it is their turn.
    """

    name: str
    study: optuna.Study
    storage: BaseHeartbeat
    search: Search
    checkout: Checkout
    known_running: set[int] = field(default_factory=set)

    def trials(self) -> list[FrozenTrial]:
        """The planned trials that are in the study, as they are now."""
        return [t for t in self.study.get_trials(deepcopy=False) if t.user_attrs.get("name")]

    def enqueue(self, trials: list[FrozenTrial]) -> bool:
        """Add a planned trial that is not there, or failed, or lost its worker; False: none is missing.

        One at a time, since each call of Optuna's reads all that wait. How often a trial failed before
        the last ``run`` does not count.
        """
        attempts: dict[str, list[FrozenTrial]] = {name: [] for name in self.search.planned_trials()}
        for trial in trials:
            attempts[trial.user_attrs["name"]].append(trial)
        begin = self.study.user_attrs.get("begin", 0)
        failed = {n: past for n, past in attempts.items() if all(t.state == TrialState.FAIL for t in past)}
        missing = [n for n, past in failed.items() if sum(t.number >= begin for t in past) < ATTEMPTS]
        if missing:
            others = any(t.state == TrialState.RUNNING for t in trials)  # at random, lest they add the same
            name = min(missing, key=lambda name: (len(attempts[name]), others and random.random()))
            past = attempts[name]  # the parameters stay: the experiments of some seeds may be done
            params = past[-1].system_attrs["fixed_params"] | past[-1].params if past else {}
            self.study.enqueue_trial(params, {"name": name})
        return bool(missing)

    def work(self) -> None:
        """Run trials until all are done.

        Raises:
            UserError: some failed again and again.
            KeyboardInterrupt: with what becomes of the running trial.
        """
        size = len(self.search.planned_trials())
        with tqdm(desc=self.name, total=size, unit="trial", disable=None) as bar:
            while True:
                trials = self.trials()
                states = Counter(trial.state for trial in trials)
                finished = states[TrialState.COMPLETE] + states[TrialState.PRUNED]
                bar.update(finished - bar.n)
                if self.enqueue(trials) or states[TrialState.WAITING]:
                    self.run_next()
                elif states[TrialState.RUNNING]:
                    self.wait()
                else:
                    break
        if finished < size:
            raise UserError(
                f"{size - finished} trials failed {ATTEMPTS} times: run the search again to retry"
            )

    def wait(self) -> None:
        """Fail the trials of dead workers, and wait for those of the others."""
        optuna.storages.fail_stale_trials(self.study)
        running = {trial._trial_id for trial in self.trials() if trial.state == TrialState.RUNNING}
        for trial in running - self.known_running:  # Optuna never misses who died before the first heartbeat
            self.storage.record_heartbeat(trial)
        self.known_running |= running
        time.sleep(random.uniform(0.2, 1) * (self.storage.get_heartbeat_interval() or 1))

    def run_next(self) -> None:
        """Run the next trial."""
        try:
            self.study.optimize(self.objective, 1, catch=(UserError,))
        except KeyboardInterrupt as stop:
            stop.args = ("stopped: the running trial is given up, and starts anew with the next worker",)
            raise
        except (AssertionError, ValueError, optuna.exceptions.UpdateFinishedTrialError) as error:
            # In a long outage others took this worker for dead and failed its trial. If the objective
            # succeeded then, Optuna asserts that this can't be.
            if not re.search("Cannot tell|already finished", f"{error} {error.__context__}"):
                raise

    def objective(self, trial: Trial) -> float:
        """The mean validation accuracy of the trial's seeds, 0 where there is none."""
        alive = [t for t in self.trials() if t.number < trial.number and t.state != TrialState.FAIL]
        name = trial.user_attrs.get("name", "")
        if name in ("", *(earlier.user_attrs["name"] for earlier in alive)):
            trial.set_user_attr("name", "")  # not an attempt
            raise UserError("nothing to do: another worker was faster")
        setting, changes, seeds = self.search.planned_trials()[name]
        changes = self.search.fixed | changes | self.search.suggest(trial)
        stages, accuracies = self.search.targets, list[float]()
        monitor = partial(report_epochs, trial, stages[0].removeprefix("train_"), [])
        for seed in seeds:
            experiment, start = f"{self.name}-{setting}-s{seed}", time.monotonic()
            try:
                if not self.checkout.exists(experiment):
                    changes["train.seed"] = seed
                    self.checkout.run(experiment, changes, stages, monitor if seed == seeds[0] else None)
                self.checkout.fetch(experiment)
                metrics = self.checkout.metrics(experiment, stages[0])
            except (UserError, optuna.TrialPruned) as error:
                tqdm.write(f"{experiment}: {error}", sys.stderr)
                raise
            # without held-out images nothing is chosen, and Optuna does not see the test set's accuracy
            accuracies.append(float(metrics.get("validation_accuracy", 0)))
            metric = next(key for key in ("validation_accuracy", "test_accuracy") if key in metrics)
            seconds = time.monotonic() - start
            tqdm.write(f"{experiment}: {seconds:.0f} s, {metric} {metrics[metric]:.4f}", sys.stderr)
        return statistics.mean(accuracies)


def report_epochs(trial: Trial, model: str, reported: list[Any], clone: Path) -> None:
    """Report to Optuna the epochs that ``model``'s training in ``clone`` has ended and not ``reported`` yet.

    Raises:
        TrialPruned: the pruner says so.
    """
    try:
        metrics = json.loads((clone / f"metrics/{model}.json").read_text())
    except FileNotFoundError:  # DVC has removed the committed ones, and no epoch has ended
        return
    if "train_accuracy" in metrics and not reported:  # the committed ones
        return
    for epoch in metrics["history"][len(reported) :]:
        reported.append(epoch)
        if "validation_accuracy" in epoch:
            trial.report(epoch["validation_accuracy"], epoch["epoch"])
            if trial.should_prune():
                raise optuna.TrialPruned(f"pruned after epoch {epoch['epoch']}")
