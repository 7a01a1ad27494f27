"""A worker: runs the trials of a study until all are done, beside others that do the same."""

import json
import os
import platform
import random
import re
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm import tqdm

from stages.common.errors import UserError
from sweeps.pipeline import with_changes
from sweeps.progress import Attempts, Progress, State
from sweeps.search import Plan
from sweeps.storage import LOST
from sweeps.trial import Failed
from tools.models import MODELS

CONCLUSION = "'python -m sweeps status"
STOPPED = "stopped: the next worker goes on with the running trial after its last whole epoch"
MISSED = 4  # signs of life, after which a worker counts as dead
EPOCH = re.compile(r"(\w+): epoch (\d+)/")
# what a training says of how it goes on; its figures are not for a search's eyes
TOLD = re.compile(rf"({'|'.join(MODELS)}): (?!epoch |test accuracy ).*")


class Worker:
    """Runs the planned trials of a study. ``lock`` is to be held while one is taken.

    Of several attempts at one planned trial that are alive, that with the lowest number counts; the others
    are copies, dropped when it is their turn.
    """

    def __init__(self, progress: Progress, lock: AbstractContextManager[object], heartbeat: float) -> None:
        self.progress, self.lock, self.heartbeat = progress, lock, heartbeat
        self.study, self.search, self.checkout = progress.study, progress.search, progress.checkout
        self.seen: dict[int, tuple[Any, float]] = {}  # the last sign of each running trial, and when it came

    def work(self) -> None:
        """Run trials until all are done.

        Raises:
            UserError: some failed; or this worker can't go on, and the trial that it had is left to others.
            KeyboardInterrupt: with what becomes of the running trial.
        """
        with self.bar() as bar:
            while True:
                alive = self.bury_the_dead()
                attempts, states = self.show(bar)
                left = {name: attempts[name] for name, state in states.items() if state == State.LEFT}
                if name := self.choose(left, alive):
                    self.enqueue(name, attempts[name])
                    self.run_next()
                elif any(trial.state == TrialState.WAITING for trial in alive):
                    self.run_next()
                elif left or State.RUNNING in states.values():
                    time.sleep(random.uniform(0.2, 1) * self.heartbeat)
                else:
                    break
        self.conclude(attempts, states)

    def bar(self) -> "tqdm[Any]":
        """A progress bar for `show`."""
        return tqdm(desc=self.checkout.name, total=len(self.progress.plans), unit="trial", disable=None)

    def show(self, bar: "tqdm[Any]") -> tuple[Attempts, dict[str, State]]:
        """Show in ``bar`` how far the study is; returns the attempts at all trials, and their states."""
        attempts = self.progress.attempts()
        states = self.progress.states(attempts)
        bar.update(sum(state not in (State.LEFT, State.RUNNING) for state in states.values()) - bar.n)
        return attempts, states

    def conclude(self, attempts: Attempts, states: Mapping[str, State]) -> None:
        """Tell what is not done of what `show` gave, where no other worker is at work any more.

        Raises:
            UserError: some trials failed, or are left.
        """
        # in a space, a setting with which no training succeeds is a result
        failed = [n for n in states if states[n] == State.FAILED and attempts[n][-1].state == TrialState.FAIL]
        for names, what in ((failed, "failed"), ([n for n in states if states[n] == State.LEFT], "are left")):
            if names:
                shown = f"{CONCLUSION} {self.checkout.name}' says which and why"
                raise UserError(f"{len(names)} of {len(states)} trials {what}: {shown}")

    def bury_the_dead(self) -> list[FrozenTrial]:
        """Fail the trials whose workers have given no sign for too long; returns what was alive till now.

        It counts what this worker sees, by its own clock.
        """
        alive = [t for t in self.study.get_trials(deepcopy=False) if not t.state.is_finished()]
        for trial in alive:
            sign, now = trial.user_attrs.get("sign"), time.monotonic()
            _, heartbeat = sign or (None, self.heartbeat)
            last, since = self.seen.get(trial.number, (None, None))
            if since is None or sign != last:
                self.seen[trial.number] = sign, now
            elif trial.state == TrialState.RUNNING and now - since > MISSED * heartbeat:
                self.progress.end(trial.number)
        return alive

    def choose(self, left: Attempts, alive: list[FrozenTrial]) -> str | None:
        """The planned trial to run next: one that a worker has left behind, else the one tried least.

        At random beside others, lest all take one.
        None where there is nothing ``left`` but what has failed here, and could succeed on another machine
        that is at work.
        """
        others = any("worker" in t.user_attrs and not ran_here(t) for t in alive)
        ready = {
            name: (not left_behind(past), len(past), bool(alive) and random.random())
            for name, past in left.items()
            if not (others and past and "failed" in past[-1].user_attrs and ran_here(past[-1]))
        }
        return min(ready, key=lambda name: ready[name]) if ready else None

    def enqueue(self, name: str, past: Sequence[FrozenTrial]) -> None:
        """Add an attempt at ``name``. What was chosen before stays: some seeds may be done."""
        params = past[-1].user_attrs["params"] | past[-1].params if past else {}
        setup = self.search.setup(self.progress.plans[name])
        self.study.enqueue_trial(params, {"name": name, "setup": setup, "params": params})

    def run_next(self) -> None:
        """Take a trial that waits, and run it.

        Raises:
            UserError: this worker can't.
            KeyboardInterrupt: with what becomes of the trial.
        """
        with self.lock:
            trial = self.study.ask()
        name = str(trial.user_attrs.get("name"))
        try:
            if not self.counts(trial, name):
                self.end(trial, name="")
                return
            value = self.measure(trial, self.progress.plans[name], Signs(trial, self.heartbeat))
        except optuna.TrialPruned as pruned:
            say(name, pruned)
            self.end(trial, TrialState.PRUNED)
        except Failed as failure:
            say(name, failure)
            poor = 0.0 if self.search.space and not failure.again else None
            state = TrialState.FAIL if poor is None else TrialState.COMPLETE
            self.end(trial, state, poor, failed={"words": str(failure), "again": failure.again})
        except UpdateFinishedTrialError:
            say(name, "given to another worker, or stopped")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                error.args = (STOPPED,)
            with suppress(*LOST):
                self.end(trial, given_up=str(error) or type(error).__name__)
            raise
        else:
            self.end(trial, TrialState.COMPLETE, value)

    def counts(self, trial: Trial, name: str) -> bool:
        """Whether ``trial`` is to be run.

        Not where another one was faster, it was stopped or asked for anew while it waited, or it is of
        another version of the search file.
        """
        attempts = self.progress.attempts()
        before = {n: [t for t in past if t.number < trial.number] for n, past in attempts.items()}
        if not any(t.number == trial.number for t in attempts.get(name, ())):
            return False
        since = self.study.user_attrs.get(self.progress.decision(name)) or 0
        return trial.number >= since and self.progress.states(before)[name] == State.LEFT

    def end(
        self, trial: Trial, state: TrialState = TrialState.FAIL, value: float | None = None, **attributes: Any
    ) -> None:
        """End ``trial``, unless another worker has."""
        with suppress(UpdateFinishedTrialError):
            for key, content in attributes.items():
                trial.set_user_attr(key, content)
        self.progress.end(trial.number, state, value)

    def measure(self, trial: Trial, plan: Plan, signs: "Signs") -> float:
        """The mean validation accuracy of the trial's seeds, 0 where there is none.

        Raises:
            Failed: a training did.
            TrialPruned: the pruner says so.
            UpdateFinishedTrialError: the trial is not this worker's any more.
        """
        stages, checkout, accuracies = self.search.targets, self.checkout, list[float]()
        changes = self.search.fixed | plan.changes | self.search.suggest(trial)
        settings = [changes | {"train.seed": seed} for seed in plan.seeds]
        experiments = [checkout.experiment(plan.setting, setting, stages) for setting in settings]
        with signs:
            trial.set_user_attr("experiments", experiments)
            if self.search.space:  # of which some values alone were checked before
                from stages.params import check_all  # imports torch, which other searches do not need

                try:
                    check_all(with_changes(checkout.params, changes))
                except UserError as error:
                    raise Failed(str(error), again=False) from None
            for number, (setting, experiment) in enumerate(zip(settings, experiments, strict=True)):
                start = time.monotonic()
                if checkout.missing([experiment]):
                    monitor = Monitor(experiment, stages, signs, number, pruning=not number)
                    log = checkout.log(experiment, trial.number)
                    with checkout.clone(experiment) as clone:
                        try:
                            checkout.train(clone, experiment, setting, stages, log, monitor)
                        except optuna.TrialPruned:
                            shutil.rmtree(checkout.folder(experiment), ignore_errors=True)
                            raise
                        signs.give()  # where another worker has the trial by now, it has the experiment too
                        checkout.hand_over(clone, experiment, stages, log)
                    shutil.rmtree(checkout.folder(experiment), ignore_errors=True)
                metrics = checkout.metrics(experiment, stages[0])
                # without held-out images nothing is chosen, and Optuna does not see the test set's accuracy
                accuracies.append(float(metrics.get("validation_accuracy", 0)))
                metric = next(key for key in ("validation_accuracy", "test_accuracy") if key in metrics)
                say(experiment, f"{time.monotonic() - start:.0f} s, {metric} {metrics[metric]:.4f}")
        return statistics.mean(accuracies)


class Signs:
    """Signs of life of a worker's ``trial``, inside, every ``seconds``."""

    def __init__(self, trial: Trial, seconds: float) -> None:
        self.trial, self.seconds = trial, seconds
        self.over = threading.Event()
        self.error: Exception | None = None

    def __enter__(self) -> "Signs":
        self.trial.set_user_attr("worker", f"{platform.node()} {os.getpid()}")
        self.give()
        threading.Thread(target=self.go_on, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()

    def give(self) -> None:
        """Give one now.

        Raises:
            UpdateFinishedTrialError: the trial is not this worker's any more.
        """
        self.trial.set_user_attr("sign", (time.time(), self.seconds))

    def go_on(self) -> None:
        """Give a sign again and again, until it fails."""
        while not self.over.wait(self.seconds):
            try:
                self.give()
            except Exception as error:  # for `check`, in the worker's own thread
                self.error = error
                return

    def check(self) -> None:
        """Raise why the last sign failed: the database is away, or the trial is another worker's."""
        if self.error:
            raise self.error


class Monitor:
    """Looks at an ``experiment`` while its ``stages`` run in a clone: whether to go on, and what they say.

    It is that of the seed with this ``number`` of the trial of ``signs``. Where it is for ``pruning``,
    Optuna's pruner sees the epochs of the first stage that have ended.
    """

    def __init__(
        self, experiment: str, stages: Sequence[str], signs: Signs, number: int, pruning: bool
    ) -> None:
        self.experiment, self.signs, self.number, self.pruning = experiment, signs, number, pruning
        self.models = [stage.removeprefix("train_") for stage in stages]
        self.line, self.epochs = b"", 0

    def __call__(self, clone: Path, log: BinaryIO) -> None:
        """Look at it.

        Raises:
            TrialPruned: the pruner says so.
            UpdateFinishedTrialError: the trial is not this worker's any more.
        """
        self.signs.check()
        *lines, self.line = (self.line + log.read()).split(b"\n")
        for line in (line.decode(errors="replace") for line in lines):
            if TOLD.fullmatch(line):
                say(self.experiment, line)
            elif (epoch := EPOCH.match(line)) and epoch[1] in self.models:
                place = self.number, self.models.index(epoch[1]), int(epoch[2])
                self.signs.trial.set_user_attr("reached", place)
                if self.pruning and epoch[1] == self.models[0]:
                    self.report(self.signs.trial, clone)

    def report(self, trial: Trial, clone: Path) -> None:
        """Report to Optuna the epochs that have ended and were not reported yet."""
        try:
            metrics = json.loads((clone / f"metrics/{self.models[0]}.json").read_text())
        except FileNotFoundError:
            return
        for epoch in metrics["history"][self.epochs :]:
            self.epochs += 1
            if "validation_accuracy" in epoch:
                trial.report(epoch["validation_accuracy"], epoch["epoch"])
                if trial.should_prune():
                    raise optuna.TrialPruned(f"pruned after epoch {epoch['epoch']}")


def left_behind(past: Sequence[FrozenTrial]) -> bool:
    """Whether the last of the attempts was ended with its worker when it had trained for some epochs."""
    return bool(past) and "reached" in past[-1].user_attrs and "failed" not in past[-1].user_attrs


def ran_here(trial: FrozenTrial) -> bool:
    """Whether the worker of ``trial`` was or is on this machine."""
    return str(trial.user_attrs.get("worker")).startswith(f"{platform.node()} ")


def say(name: str, words: object) -> None:
    """Print a line beside the progress bar."""
    tqdm.write(f"{name}: {words}", sys.stderr)
