"""What a worker makes of the study that it shares with others, without trainings."""

import json
import os
import platform
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState

from stages.common.errors import UserError
from sweeps.progress import ATTEMPTS, Progress, State
from sweeps.search import PRUNERS, SAMPLERS, Plan, Search
from sweeps.trial import Failed
from sweeps.worker import MISSED, Monitor, Signs, Worker

TWO = {"targets": ["train_cnn"], "seeds": [0], "settings": {"a": {}, "b": {}}}
SPACE = {"targets": ["train_cnn"], "seeds": [0], "space": {"reg.dropout": {"float": {"low": 0, "high": 1}}}}


class Results:
    """In place of a checkout: experiments that are there."""

    name, params = "search", dict[str, Any]()

    def __init__(self, folder: Path) -> None:
        self.kept, self.gone = folder, list[str]()

    def missing(self, experiments: list[str]) -> list[str]:
        return [experiment for experiment in experiments if experiment in self.gone]

    def log(self, experiment: str, attempt: int) -> Path:
        return self.kept / experiment / f"{attempt}.log"


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def worker_of(results: Results, study: optuna.Study, content: dict[str, Any] = TWO) -> Worker:
    return Worker(Progress(study, Search(**content), cast(Any, results)), nullcontext(), 0.01)


def state(worker: Worker, name: str = "a-s0") -> State:
    return worker.progress.states(worker.progress.attempts())[name]


def begin(worker: Worker, name: str = "a-s0") -> optuna.Trial:
    worker.enqueue(name, worker.progress.attempts()[name])
    return worker.study.ask()


def test_a_retry_keeps_what_was_chosen_though_the_last_attempt_came_to_nothing(results: Results) -> None:
    worker = worker_of(results, optuna.create_study(), SPACE | {"trials": 1})
    chosen = begin(worker, "0000").suggest_float("reg.dropout", 0, 1)
    worker.study.tell(0, state=TrialState.FAIL)
    begin(worker, "0000")
    worker.study.tell(1, state=TrialState.FAIL)  # before it asked for a value
    assert begin(worker, "0000").suggest_float("reg.dropout", 0, 1) == chosen


@pytest.mark.parametrize("end", ["succeeds", "fails", "reports"])
def test_a_worker_whose_trial_was_given_away_goes_on(
    end: str, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_of(results, optuna.create_study())

    def measure(_: Worker, trial: optuna.Trial, *__: Any) -> float:
        worker.study.tell(trial.number, state=TrialState.FAIL)  # as another worker does
        if end == "fails":
            raise Failed("it did", again=False)
        if end == "reports":
            trial.report(0.5, 1)
        return 0.5

    monkeypatch.setattr(Worker, "measure", measure)
    worker.enqueue("a-s0", [])
    worker.run_next()
    assert [trial.state for trial in worker.study.trials] == [TrialState.FAIL]
    monkeypatch.setattr(Worker, "measure", lambda *_: "".index("x"))
    worker.enqueue("a-s0", worker.progress.attempts()["a-s0"])
    with pytest.raises(ValueError, match="substring"):  # what else goes wrong is not hidden
        worker.run_next()


def test_of_two_attempts_at_one_trial_one_is_dropped(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_of(results, optuna.create_study())
    measured = []

    def measure(_: Worker, trial: optuna.Trial, *__: Any) -> float:
        measured.append(trial.number)
        return 0.5

    monkeypatch.setattr(Worker, "measure", measure)
    begin(worker)  # another worker has it
    worker.enqueue("a-s0", [])
    worker.run_next()
    assert measured == []
    assert [trial.state for trial in worker.study.trials] == [TrialState.RUNNING, TrialState.FAIL]
    assert len(worker.progress.attempts()["a-s0"]) == 1
    worker.run_next()  # where another took the last that waited
    assert measured == []
    worker.progress.decide("a-s0", again=True)
    worker.enqueue("a-s0", [])  # its worker dies before it takes it
    worker.progress.decide("a-s0", again=True)
    worker.run_next()
    assert measured == []
    worker.enqueue("a-s0", [])
    worker.run_next()
    assert measured == [len(worker.study.trials) - 1]


def test_what_goes_wrong_between_taking_and_running_a_trial_costs_none(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_of(results, optuna.create_study())

    def missing(_: list[str]) -> list[str]:
        raise UserError("git ls-remote failed")

    for number in range(ATTEMPTS + 1):
        worker.enqueue("a-s0", [])
        with monkeypatch.context() as patch:
            patch.setattr(results, "missing", missing)
            with pytest.raises(UserError, match="ls-remote"):
                worker.run_next()
        assert worker.study.trials[number].state == TrialState.FAIL
        assert state(worker) == State.LEFT


def test_which_failures_end_a_setting(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = worker_of(results, optuna.create_study())

    def fail(error: BaseException, epoch: int = 0) -> None:
        def measure(_: Worker, trial: optuna.Trial, *__: Any) -> float:
            trial.set_user_attr("worker", "here 1")
            trial.set_user_attr("reached", (0, 0, epoch))
            raise error

        monkeypatch.setattr(Worker, "measure", measure)
        worker.enqueue("a-s0", worker.progress.attempts()["a-s0"])
        worker.run_next()

    for _ in range(2 * ATTEMPTS):  # a worker that can't go on takes no tries with it
        with pytest.raises(UserError, match="no disk"):
            fail(UserError("no disk"))
        with pytest.raises(KeyboardInterrupt, match="the next worker goes on"):
            fail(KeyboardInterrupt())
    assert state(worker) == State.LEFT
    for _ in range(ATTEMPTS):
        assert state(worker) == State.LEFT
        fail(Failed("killed", again=True))
    assert state(worker) == State.FAILED
    worker.study.set_user_attr("begin", len(worker.study.trials))  # 'run' once more
    assert state(worker) == State.LEFT
    for epoch in range(1, 2 * ATTEMPTS):  # each came further than the one before
        fail(Failed("killed", again=True), epoch)
        assert state(worker) == State.LEFT
    for _ in range(ATTEMPTS):
        assert state(worker) == State.LEFT
        dead = begin(worker)
        dead.set_user_attr("worker", "here 1")
        worker.progress.end(dead.number)
    assert state(worker) == State.FAILED
    assert "its worker died" in worker.progress.table()
    worker.study.set_user_attr("begin", len(worker.study.trials))
    fail(Failed("the loss is NaN", again=False))
    assert state(worker) == State.FAILED
    worker.study.set_user_attr("begin", len(worker.study.trials))
    assert state(worker) == State.FAILED
    worker.progress.decide("a-s0", again=True)
    assert state(worker) == State.LEFT
    assert state(worker, "b-s0") == State.LEFT
    shown = worker.show(worker.bar())
    with pytest.raises(UserError, match="2 of 2 trials are left"):
        worker.conclude(*shown)


def test_what_may_succeed_elsewhere_is_left_to_another_machine(results: Results) -> None:
    worker = worker_of(results, optuna.create_study(), TWO | {"settings": {"a": {}}})
    trial = begin(worker)
    trial.set_user_attr("worker", f"{platform.node()} 1")
    worker.end(trial, failed={"words": "killed", "again": True})
    left = worker.progress.attempts()
    assert worker.choose(left, []) == "a-s0"
    other = begin(worker, "a-s0")
    other.set_user_attr("worker", "elsewhere 1")
    alive = [worker.study.trials[other.number]]
    assert worker.choose(left, alive) is None
    other.set_user_attr("worker", f"{platform.node()} 2")
    assert worker.choose(left, [worker.study.trials[other.number]]) == "a-s0"


@pytest.mark.parametrize("attribute", ["given_up", None])
def test_what_was_stopped_halfway_comes_first(attribute: str | None, results: Results) -> None:
    """Whether its worker said so or died; what failed by itself comes last."""
    worker = worker_of(results, optuna.create_study())
    begun = begin(worker, "b-s0")
    begun.set_user_attr("reached", [0, 0, 7])
    if attribute:
        begun.set_user_attr(attribute, "stopped")
    worker.study.tell(begun, state=TrialState.FAIL)
    assert worker.choose(worker.progress.attempts(), []) == "b-s0"
    failed = begin(worker, "b-s0")
    failed.set_user_attr("reached", [0, 0, 8])
    failed.set_user_attr("failed", {"words": "memory ran out", "again": True})
    worker.study.tell(failed, state=TrialState.FAIL)
    assert worker.choose(worker.progress.attempts(), []) == "a-s0"


def test_the_dead_are_known_by_the_signs_that_they_do_not_give(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("sweeps.worker.time.monotonic", lambda: now)
    worker = worker_of(results, optuna.create_study())
    dead, living = begin(worker), begin(worker, "b-s0")
    for number in range(1, MISSED + 3):
        assert len(worker.bury_the_dead()) == 2
        assert state(worker) == (State.RUNNING if number <= MISSED + 1 else State.LEFT), number
        living.set_user_attr("sign", (number, 2 * worker.heartbeat))
        now += worker.heartbeat
    assert worker.study.trials[dead.number].state == TrialState.FAIL
    for _ in range(MISSED + 3):  # its worker gives a sign half as often as this one
        now += worker.heartbeat
        assert state(worker, "b-s0") == State.RUNNING
        worker.bury_the_dead()
    now += MISSED * worker.heartbeat
    worker.bury_the_dead()
    assert state(worker, "b-s0") == State.LEFT


def test_a_worker_gives_signs_and_learns_that_its_trial_was_taken(results: Results) -> None:
    worker = worker_of(results, optuna.create_study())
    trial = begin(worker)
    with Signs(trial, 0.01) as signs:
        first = worker.study.trials[0].user_attrs["sign"]
        while first == worker.study.trials[0].user_attrs["sign"]:
            signs.check()
        assert worker.study.trials[0].user_attrs["worker"] == f"{platform.node()} {os.getpid()}"
        worker.study.tell(trial.number, state=TrialState.FAIL)
        while not signs.error:
            time.sleep(0.01)
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
            signs.check()


def test_what_a_training_says_of_its_checkpoint_is_passed_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    unfit = (
        "cnn: the checkpoint after epoch 3 does not fit (runtime.threads was 8, is 4): training starts over"
    )
    trial = optuna.create_study(direction="maximize").ask()
    monitor = Monitor("ablation-all-s0", ["train_cnn"], Signs(trial, 1), number=0, pruning=True)
    path.write_text(f"Running stage\nna\xefve\r\n{unfit}\ncnn: epoch 1/2  accuracy 0.5\ncnn: conti")
    with open(path, "rb") as log:
        monitor(tmp_path, log)
        assert trial.user_attrs["reached"] == (0, 0, 1)
        with open(path, "a") as more:
            more.write("nues after epoch 1\ncnn: epoch 2/2  accuracy 0.6\ncnn: test accuracy 0.7\n")
        (tmp_path / "metrics").mkdir()
        epochs = [{"epoch": 1, "validation_accuracy": 0.5}, {"epoch": 2, "validation_accuracy": 0.6}]
        (tmp_path / "metrics/cnn.json").write_text(json.dumps({"history": epochs}))
        monitor(tmp_path, log)
        monitor(tmp_path, log)
    assert trial.user_attrs["reached"] == (0, 0, 2)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"ablation-all-s0: {unfit}", "ablation-all-s0: cnn: continues after epoch 1"]
    assert trial.study.trials[0].intermediate_values == {1: 0.5, 2: 0.6}


@pytest.mark.parametrize("kind", ["sampler", "pruner"])
def test_every_sampler_and_pruner_that_may_be_named_runs(
    kind: str, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {
        "PercentilePruner": {"percentile": 25.0},
        "ThresholdPruner": {"lower": 0.1},
    }

    def measure(worker: Worker, trial: optuna.Trial, _: Plan, __: Signs) -> float:
        value = float(worker.search.suggest(trial)["reg.dropout"])
        for epoch in (1, 2):
            trial.report(value, epoch)
            trial.should_prune()
        return value

    monkeypatch.setattr(Worker, "measure", measure)
    for name in SAMPLERS if kind == "sampler" else PRUNERS:
        study = optuna.create_study(direction="maximize")
        worker = worker_of(results, study, SPACE | {"trials": 2, kind: {name: needed.get(name, {})}})
        worker.search.prepare(study)
        worker.work()
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
        assert type(getattr(study, kind)).__name__ == name
