"""Where a study stands: which of its planned trials are done, run somewhere, failed, or are left."""

from collections.abc import Mapping, Sequence
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
    which ``params`` were chosen before; which ``worker`` has it; and how it came to nothing: it ``failed``,
    or was ``given_up`` for a reason that lies not in it.
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
        ended = [name for name, past in attempts.items() if any(has_result(trial) for trial in past)]
        gone = set(self.checkout.missing([e for name in ended for e in self.experiments(name)]))
        decisions = self.study.user_attrs
        return {
            name: self._state(name, past, decisions, gone.isdisjoint(self.experiments(name)))
            for name, past in attempts.items()
        }

    def _state(
        self, name: str, attempts: Sequence[FrozenTrial], decisions: Mapping[str, Any], there: bool
    ) -> State:
        since = decisions.get(f"since {name}", 0)
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
            if has_result(trial) and there:
                return State.DONE
        begin = decisions.get("begin", 0)
        counted = [t for t in past if t.state == TrialState.FAIL and "given_up" not in t.user_attrs]
        return State.FAILED if sum(t.number >= begin for t in counted) >= ATTEMPTS else State.LEFT

    def experiments(self, name: str) -> list[str]:
        """The experiments of a planned trial, one for each seed."""
        plan = self.plans[name]
        return [f"{self.checkout.name}-{plan.setting}-s{seed}" for seed in plan.seeds]

    def decide(self, name: str, again: bool) -> None:
        """Try the planned trial ``name`` again, or leave it out. Where it runs, it ends.

        Raises:
            UserError: there is no such trial.
        """
        if name not in self.plans:
            raise UserError(f"{self.checkout.name} has no trial {name}: it has {', '.join(self.plans)}")
        trials = self.study.get_trials(deepcopy=False)
        self.study.set_user_attr(f"since {name}", len(trials) if again else None)
        for trial in trials:
            if trial.user_attrs.get("name") == name and trial.state == TrialState.RUNNING:
                self.end(trial.number)

    def end(self, number: int, state: TrialState = TrialState.FAIL, value: float | None = None) -> None:
        """End the attempt ``number``, unless another worker has."""
        with suppress(UpdateFinishedTrialError):  # it may do so at this very moment
            self.study.tell(number, value, state, skip_if_finished=True)

    def table(self) -> str:
        """Each planned trial in a row: its state, who has or had it, since when, and why it failed."""
        attempts = self.attempts()
        rows = []
        for name, state in self.states(attempts).items():
            last = attempts[name][-1] if attempts[name] else None
            attributes = last.user_attrs if last else {}
            words = attributes.get("failed", {}).get("words", "")
            if state == State.FAILED or words:
                logs = map(self.checkout.log, self.experiments(name))
                words += "".join(f" ({log})" for log in logs if log.exists())
            rows.append(
                {
                    "trial": name,
                    "changes": changed(self.plans[name].changes | (last.params if last else {})),
                    "state": state,
                    "attempts": len(attempts[name]),
                    "worker": attributes.get("worker", ""),
                    "since": f"{last.datetime_start:%F %T}" if last and last.datetime_start else "",
                    "why": words,
                }
            )
        table = pd.DataFrame(rows, dtype=object)
        table = table.loc[:, (table != "").any()]
        counts = table["state"].value_counts()
        summary = ", ".join(f"{counts[state]} {state}" for state in State if state in counts)
        return f"{table.to_markdown(index=False, disable_numparse=True)}\n\n{summary} of {len(table)}"


def has_result(trial: FrozenTrial) -> bool:
    """Whether ``trial`` ended with experiments."""
    return trial.state == TrialState.COMPLETE and "failed" not in trial.user_attrs
