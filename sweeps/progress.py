"""Where a study stands: which of its planned trials are done, run somewhere, failed, or are left."""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from enum import StrEnum
from typing import Any

import optuna
import pandas as pd
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from stages.common.errors import UserError
from sweeps.results import changed
from sweeps.search import Search
from sweeps.trial import Checkout

ATTEMPTS = 5
ALIVE = (TrialState.RUNNING, TrialState.WAITING)
START = (0, 0, 0)  # seed, target and epoch that an attempt has reached


class State(StrEnum):
    """Of a planned trial."""

    LEFT = "left"
    RUNNING = "running"
    DONE = "done"
    PRUNED = "pruned"
    FAILED = "failed"
    STOPPED = "stopped"


Attempts = Mapping[str, Sequence[FrozenTrial]]


class Progress:
    """The planned trials of ``search`` in ``study``.

    A trial of Optuna's is one attempt. Its attributes say at which planned one, by ``name`` and ``setup``;
    which ``params`` were chosen before; which ``worker`` has it, and its last ``sign`` of life (when, and
    after how many seconds the next one comes); its ``experiments``; the seed, target and epoch that it has
    ``reached``; and how it came to nothing: it ``failed``, or was ``given_up`` for a reason that lies not in
    it.
    """

    def __init__(self, study: optuna.Study, search: Search, checkout: Checkout) -> None:
        self.study, self.search, self.checkout = study, search, checkout
        self.plans = search.planned_trials()

    def attempts(self) -> dict[str, list[FrozenTrial]]:
        """The attempts at each planned trial, as they are now."""
        found: dict[str, list[FrozenTrial]] = {name: [] for name in self.plans}
        for trial in self.study.get_trials(deepcopy=False):
            name = trial.user_attrs.get("name")
            if name in found and trial.user_attrs["setup"] == self.search.setup(self.plans[name]):
                found[name].append(trial)
        return found

    def states(self, attempts: Attempts) -> dict[str, State]:
        """The state of each planned trial. One whose experiment is gone is to be done again."""
        ended = [trial for past in attempts.values() for trial in past if has_result(trial)]
        gone = set(self.checkout.missing([experiment for trial in ended for experiment in made_by(trial)]))
        decisions = self.study.user_attrs
        return {name: self._state(name, past, decisions, gone) for name, past in attempts.items()}

    def _state(
        self, name: str, attempts: Sequence[FrozenTrial], decisions: Mapping[str, Any], gone: Set[str]
    ) -> State:
        since = decisions.get(self.decision(name), 0)
        if since is None:
            return State.STOPPED
        past = [trial for trial in attempts if trial.number >= since]
        if any(trial.state in ALIVE for trial in past):
            return State.RUNNING
        for trial in past:
            if "failed" in trial.user_attrs and not trial.user_attrs["failed"]["again"]:
                return State.FAILED
            if trial.state == TrialState.PRUNED:
                return State.PRUNED
            if has_result(trial) and gone.isdisjoint(made_by(trial)):
                return State.DONE
        return State.FAILED if in_vain(past, decisions.get("begin", 0)) >= ATTEMPTS else State.LEFT

    def decision(self, name: str) -> str:
        """The study's attribute that says since which attempt ``name`` counts; None: it is stopped."""
        return f"since {name} {self.search.setup(self.plans[name])}"

    def decide(self, name: str, again: bool) -> None:
        """Try the planned trial ``name`` again, or leave it out. Where it runs, it ends.

        Raises:
            UserError: there is no such trial.
        """
        if name not in self.plans:
            raise UserError(f"{self.checkout.name} has no trial {name}: it has {', '.join(self.plans)}")
        trials = self.study.get_trials(deepcopy=False)
        self.study.set_user_attr(self.decision(name), len(trials) if again else None)
        for trial in trials:
            if trial.user_attrs.get("name") == name and trial.state == TrialState.RUNNING:
                self.end(trial.number)

    def end(self, number: int, state: TrialState = TrialState.FAIL, value: float | None = None) -> None:
        """End the attempt ``number``, unless another worker has."""
        with suppress(UpdateFinishedTrialError):  # it may do so at this very moment
            self.study.tell(number, value, state, skip_if_finished=True)

    def table(self) -> str:
        """Each planned trial in a row: its state, who has or had it, since when, and why it ended."""
        attempts = self.attempts()
        rows = []
        for name, state in self.states(attempts).items():
            row = {"trial": name, "changes": changed(self.plans[name].changes), "state": state}
            rows.append(row | {"attempts": len(attempts[name])})
            if attempts[name]:
                last = attempts[name][-1]
                *_, epoch = last.user_attrs.get("reached", START)
                logs = (self.checkout.log(experiment, last.number) for experiment in made_by(last))
                rows[-1] |= {
                    "changes": changed(self.plans[name].changes | last.params),
                    "worker": last.user_attrs.get("worker", ""),
                    "epoch": epoch or "",
                    "since": f"{last.datetime_start:%F %T}" if last.datetime_start else "",
                    "why": "" if state == State.STOPPED else why(last),
                    "log": " ".join(str(log) for log in logs if log.exists()),
                }
        table = pd.DataFrame(rows, dtype=object).fillna("")
        table = table.loc[:, (table != "").any()]
        counts = table["state"].value_counts()
        summary = ", ".join(f"{counts[state]} {state}" for state in State if state in counts)
        return f"{table.to_markdown(index=False, disable_numparse=True)}\n\n{summary} of {len(table)}"


def has_result(trial: FrozenTrial) -> bool:
    """Whether ``trial`` ended with experiments."""
    return trial.state == TrialState.COMPLETE and "failed" not in trial.user_attrs


def made_by(trial: FrozenTrial) -> list[str]:
    """The experiments of ``trial``, one for each seed; none before it has chosen parameters."""
    return list(trial.user_attrs.get("experiments", ()))


def why(trial: FrozenTrial) -> str:
    """How ``trial`` came to nothing; empty where it did not."""
    attributes = trial.user_attrs
    words = attributes.get("failed", {}).get("words") or attributes.get("given_up")
    return str(words or ("its worker died" if trial.state == TrialState.FAIL else ""))


def in_vain(past: Sequence[FrozenTrial], begin: int) -> int:
    """How many attempts after the last progress, and after ``begin``, failed or died of something in them."""
    best, count = list(START), 0
    for trial in past:
        reached = list(trial.user_attrs.get("reached", START))
        if reached > best:
            best, count = reached, 0
        elif trial.number >= begin and trial.state == TrialState.FAIL:
            count += "worker" in trial.user_attrs and "given_up" not in trial.user_attrs
    return count
