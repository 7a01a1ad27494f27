"""Sweeps: every trial is an experiment, nothing is left of one that was ended, and nothing is lost."""

import csv
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState
from PIL import Image

from stages.common.errors import UserError
from sweeps.search import Search
from sweeps.worker import Worker
from tests.project import ROOT, TINY, command, commit, copy_project, dvc
from tests.sweeps.support import fake_project, gone, postgres, processes, start, sweep, write_search

pytestmark = pytest.mark.slow

ERASING = [{"RandomErasing": {"p": 0.25, "value": "random"}}]
TWO = {"strong": {"reg.dropout": 0.5}, "weak": {"reg.dropout": 0.1}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_project(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy of the pretended project."""
    return Path(shutil.copytree(made, tmp_path / "project", symlinks=True))


def git(folder: Path, *args: str) -> str:
    result = command(folder, "git", *args)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def refs(folder: Path) -> list[str]:
    names = git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    return sorted(name for name in names if "/exec/" not in name)


def experiments(repository: Path) -> list[str]:
    """Names of the experiments in ``repository``."""
    return sorted(ref.rsplit("/", 1)[1] for ref in refs(repository))


def trained(folder: Path, line: str = "begin") -> list[tuple[str, str]]:
    """Seed and dropout of the trainings that began (or ended) since the project was made."""
    lines = [text.split() for text in (folder / "log").read_text().splitlines()]
    return [(values[0], values[1]) for kind, *values in lines if kind == line][1:]


def study_of(url: str, folder: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=f"{name}@{git(folder, 'rev-parse', 'HEAD')[:10]}", storage=url)


def embedded(folder: Path, name: str) -> optuna.Study:
    return study_of(f"sqlite:///{folder}/runs/sweep/studies.db", folder, name)


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_every_setting_and_seed_becomes_an_experiment(project: Path) -> None:
    write_search(project, "two", seeds=[0, 1], settings=TWO)
    before = git(project, "rev-parse", "HEAD")
    output = sweep(project, "run", "two.yaml")
    names = ["two-strong-s0", "two-strong-s1", "two-weak-s0", "two-weak-s1"]
    assert experiments(project) == names
    assert [line.split(":")[0] for line in output.splitlines()] == names
    assert trained(project) == [("0", "0.5"), ("1", "0.5"), ("0", "0.1"), ("1", "0.1")]
    assert (project / "log").read_text().count("download") == 1  # when the project was made

    # the checkout is as it was, and shows, compares and adopts them
    assert git(project, "rev-parse", "HEAD") == before
    assert git(project, "status", "--porcelain") == ""
    assert not list(project.glob("runs/tmp/*-s[01]-*"))
    rows = csv.DictReader(dvc(project, "exp", "show", "--csv").splitlines())
    shown = {row["Experiment"]: row["validation_accuracy"] for row in rows}
    assert {name: float(shown[name]) for name in names} == pytest.approx(
        {"two-strong-s0": 0.5, "two-strong-s1": 0.51, "two-weak-s0": 0.9, "two-weak-s1": 0.91}
    )
    diff = json.loads(dvc(project, "metrics", "diff", "--json", "HEAD", "two-weak-s1"))
    assert diff["metrics/regularized.json"]["validation_accuracy"]["new"] == pytest.approx(0.91)
    dvc(project, "exp", "apply", "two-weak-s1")
    assert (project / "models/regularized.safetensors").read_text().startswith("0.91")
    git(project, "checkout", "-q", "--", ".")

    # all of it is done: once more does nothing
    assert sweep(project, "run", "two.yaml") == ""
    assert sweep(project, "worker", "two") == ""
    assert len(trained(project)) == 4


def test_a_clone_may_be_on_another_file_system_than_the_cache(project: Path) -> None:
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == project.stat().st_dev:
        pytest.skip("no other file system here")
    write_search(project, "two", settings=TWO)
    with TemporaryDirectory(dir="/dev/shm") as folder:
        sweep(project, "run", "two.yaml", temporary=Path(folder))
        assert not list(Path(folder).glob("*-s0-*"))
    dvc(project, "exp", "apply", "two-weak-s0")
    assert (project / "models/regularized.safetensors").read_text().startswith("0.9 ")
    assert (project / "data/dataset").read_text() == "images"
    assert (project / "log").read_text().count("download") == 1


def test_the_report_has_mean_and_spread_of_the_experiments(project: Path) -> None:
    write_search(project, "two", seeds=[0, 1, 2], settings=TWO)
    sweep(project, "run", "two.yaml")
    table = sweep(project, "report", "two").splitlines()
    values = [0.9 - 0.5, 0.91 - 0.5, 0.92 - 0.5]
    cells = [cell.strip() for cell in table[3].strip("|").split("|")]
    assert cells == [
        *("regularized", "weak"),
        f"{statistics.mean(values):.4f}",
        f"{statistics.stdev(values):.4f}",
        *("+0.4000", "0.9100", "+0.5000", "3"),
    ]
    content = json.loads((project / "sweeps/results/two.json").read_text())
    assert content["commit"] == git(project, "rev-parse", "HEAD")
    assert content["settings"]["weak"]["changes"] == {"reg.dropout": 0.1}
    seed = content["settings"]["weak"]["seeds"]["1"]
    assert seed["experiment"] == "two-weak-s1"
    assert seed["train_regularized"]["test_accuracy"] == pytest.approx(0.41)
    assert (project / "sweeps/results/two.png").read_bytes().startswith(b"\x89PNG")
    git(project, "update-ref", "-d", refs(project)[-1])
    process = start(project, "report", "two")
    assert "two-weak-s2" in process.communicate(timeout=60)[0]  # and not what is committed in its place
    assert process.returncode == 1


def test_a_search_sees_validation_accuracy_only_and_repeats_what_survives(project: Path) -> None:
    space = {"reg.dropout": {"float": {"low": 0.1, "high": 0.4}}}
    write_search(project, "find", seeds=[0, 1], space=space, trials=2)
    sweep(project, "run", "find.yaml")
    trials = embedded(project, "find").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    for trial in trials:
        accuracy = 1 - trial.params["reg.dropout"]
        assert trial.value == pytest.approx(accuracy + 0.005)  # the mean of both seeds'
        assert trial.intermediate_values == pytest.approx({1: accuracy / 2, 2: accuracy})
        assert trial.user_attrs.keys() == {"name"}
    assert experiments(project) == [f"find-000{trial}-s{seed}" for trial in (0, 1) for seed in (0, 1)]
    table = sweep(project, "report", "find").splitlines()
    assert "test" not in (project / "sweeps/results/find.json").read_text() + table[0]
    best = max(trials, key=lambda trial: trial.value or 0)
    assert f"| reg.dropout {best.params['reg.dropout']:.3g} " in table[2]
    with Image.open(project / "sweeps/results/find.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10  # something is drawn


def test_pruning_ends_the_training_within_an_epoch_and_leaves_nothing(project: Path) -> None:
    write_search(
        project,
        "prune",
        grid={"reg.dropout": [0.5, 0.1]},
        fixed={"train.epochs": 8},
        pruner={"ThresholdPruner": {"lower": 0.2, "n_warmup_steps": 2}},  # then 0.5 * 2/8 and 0.9 * 2/8
    )
    output = sweep(project, "run", "prune.yaml")
    assert "prune-0000-s0: pruned after epoch 2" in output
    assert gone(project)
    assert trained(project, "end") == [("0", "0.1")]
    assert experiments(project) == ["prune-0001-s0"]
    states = [trial.state for trial in embedded(project, "prune").trials]
    assert states == [TrialState.PRUNED, TrialState.COMPLETE]
    assert not list(project.glob("runs/tmp/*-s[01]-*"))
    assert json.loads((project / ".dvc/tmp/rwlock").read_text()) == {}
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ended_worker_leaves_no_process_and_the_next_one_goes_on(project: Path, signum: int) -> None:
    write_search(project, "long", settings=TWO, fixed={"train.epochs": 4})
    worker = start(project, "run", "long.yaml")
    wait_for(lambda: trained(project))
    assert any("train.py" in line for line in processes(project))
    os.kill(worker.pid, signum)
    output, _ = worker.communicate(timeout=10)
    assert gone(project), processes(project)
    if signum != signal.SIGKILL:
        assert worker.returncode == 128 + signum
        assert output.splitlines()[-1].startswith("stopped: the running trial is given up")
        assert not list(project.glob("runs/tmp/*-s0-*"))
    assert experiments(project) == []
    sweep(project, "worker", "long")
    assert experiments(project) == ["long-strong-s0", "long-weak-s0"]
    assert Counter(trained(project, "end")) == {("0", "0.5"): 1, ("0", "0.1"): 1}


def test_a_retry_keeps_what_was_chosen_though_the_last_attempt_came_to_nothing() -> None:
    study, nothing = optuna.create_study(), cast(Any, None)
    space = {"reg.dropout": {"float": {"low": 0, "high": 1}}}
    worker = Worker("", study, nothing, Search(targets=["train_cnn"], seeds=[0], space=space), nothing)
    study.enqueue_trial({"reg.dropout": 0.25}, {"name": "0000"})
    study.tell(study.ask(), state=TrialState.FAIL)  # before it asked for a value
    assert worker.enqueue(worker.trials())
    assert study.ask().suggest_float("reg.dropout", 0, 1) == 0.25


@pytest.mark.parametrize("end", ["succeeds", "fails", "reports"])
def test_a_worker_whose_trial_was_given_away_goes_on(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study, nothing = optuna.create_study(), cast(Any, None)

    def objective(worker: Worker, trial: optuna.Trial) -> float:
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # as another worker does
        if end == "fails":
            raise UserError
        if end == "reports":
            trial.report(0.5, 1)
        return 0.5

    monkeypatch.setattr(Worker, "objective", objective)
    worker = Worker("", study, nothing, nothing, nothing)
    worker.run_next()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]
    monkeypatch.setattr(Worker, "objective", lambda worker, trial: "".index("x"))
    with pytest.raises(ValueError, match="substring"):  # what else goes wrong is not hidden
        worker.run_next()


def test_what_is_only_here_is_not_taken_for_handed_over(project: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"
    dvc(project, "remote", "add", "-d", "store", "../store")
    write_search(project, "two", settings=TWO)
    git(project, "clone", "-q", "--bare", ".", str(remote))
    sweep(project, "run", "two.yaml")
    sweep(project, "run", "two.yaml", "--remote", str(remote), "--storage", f"sqlite:///{tmp_path}/other.db")
    assert experiments(remote) == ["two-strong-s0", "two-weak-s0"]
    assert len(trained(project)) == 2
    dvc(project, "exp", "apply", "two-weak-s0")
    for folder in (".dvc/cache", "models"):
        shutil.rmtree(project / folder)
    dvc(project, "pull")
    assert (project / "models/regularized.safetensors").read_text().startswith("0.9 ")


def test_a_setting_that_fails_is_tried_again_and_reported(project: Path) -> None:
    write_search(project, "bad", settings={"bad": {"reg.dropout": 0.9}, **TWO})
    process = start(project, "run", "bad.yaml")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    lines = output.splitlines()
    assert lines[-1] == "error: 1 trials failed 5 times: run the search again to retry"
    assert sum("bad-bad-s0" in line and "0.9 is too much" in line for line in lines) == 5
    assert experiments(project) == ["bad-strong-s0", "bad-weak-s0"]
    for word, more in (("worker", 0), ("run", 5)):  # workers that come later do not add to it
        process = start(project, word, "bad.yaml")
        assert process.communicate(timeout=120)[0].count("0.9 is too much") == more
        assert process.returncode == 1
    assert len(trained(project)) == 2 + 5 + 5


def test_who_may_not_join_is_refused_in_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_search(project, "two", settings=TWO)

    def refusal(*args: str) -> str:
        process = start(project, *args)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert output.count("\n") == 1
        return output

    assert "has not been run" in refusal("worker", "two")
    assert "--storage: " in refusal("run", "two.yaml", "--storage", "postgresql://x@127.0.0.1:1/x")
    assert "two-x.yaml: FileNotFoundError" in refusal("run", "two-x.yaml")
    assert "two words is no name of a search" in refusal("run", "two words.yaml")
    assert "--remote needs a default DVC remote" in refusal("run", "two.yaml", "--remote", "origin")
    with monkeypatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        git(project, "config", "--unset", "user.email")
        assert "git config user.email failed" in refusal("run", "two.yaml")
        git(project, "config", "user.email", "t@e.org")
    sweep(project, "run", "two.yaml")
    (project / "train.py").write_text("changed")
    assert "train.py" in refusal("worker", "two")
    commit(project, "another commit")
    assert "has not been run" in refusal("worker", "two")
    assert "these files differ from the study's commit" in refusal(
        "worker", f"two@{git(project, 'rev-parse', 'HEAD^')}"
    )


def test_two_workers_on_the_embedded_file_share_the_trials(project: Path) -> None:
    write_search(project, "many", seeds=[0, 1, 2, 3], settings=TWO, fixed={"train.epochs": 1})
    workers = [start(project, "run", "many.yaml") for _ in range(2)]
    for worker in workers:
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, output
    assert len(experiments(project)) == 8
    assert set(Counter(trained(project)).values()) == {1}
    assert not [trial for trial in embedded(project, "many").trials if not trial.state.is_finished()]


def test_the_real_training_gives_what_it_gives_without_a_sweep(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project", TINY)
    dvc(folder, "repro", "train_regularized")
    commit(folder, "a run")
    write_search(
        folder,
        "off",
        settings={"off": {"reg.one_cycle_peak": None, "reg.batch_norm": False, "aug.extra": ERASING}},
        seeds=[3],
    )
    sweep(folder, "run", "off.yaml")
    changes = ["-S", "reg.one_cycle_peak=null", "-S", "reg.batch_norm=false", "-S", "train.seed=3"]
    changes += ["-S", "aug.extra=[{RandomErasing: {p: 0.25, value: random}}]"]
    dvc(folder, "exp", "run", "-n", "direct", "--force", "--single-item", *changes, "train_regularized")
    of = [json.loads(git(folder, "show", f"{ref}:metrics/regularized.json")) for ref in refs(folder)]
    assert of[0] == of[1]
    params = yaml.safe_load(git(folder, "show", f"{refs(folder)[1]}:params.yaml"))
    assert params["reg"]["one_cycle_peak"] is None
    assert params["reg"]["batch_norm"] is False
    assert params["aug"]["extra"] == ERASING
    dvc(folder, "plots", "diff", "off-off-s3", "HEAD", "--out", "charts")
    page = (folder / "charts/index.html").read_text()
    assert page.count('"rev": "off-off-s3"') >= 2  # the epochs at least, in losses and accuracy


def test_nothing_is_lost_when_workers_and_the_database_are_killed(tmp_path: Path) -> None:
    """Three workers in clones of their own, a Git remote, a DVC remote, and SIGKILL at random moments."""
    chance = random.Random(os.environ.get("CHAOS_SEED", "0"))
    store, log, remote = tmp_path / "store", tmp_path / "log", tmp_path / "remote.git"
    store.mkdir()
    config = "    remote = store\n['remote \"store\"']\n    url = ../../store\n"
    origin = fake_project(tmp_path / "origin", config)
    shutil.copy(origin / "log", log)
    settings = {f"d{number}": {"reg.dropout": number / 10} for number in range(1, 7)}
    write_search(origin, "chaos", seeds=[0, 1], settings=settings)
    dvc(origin, "push")
    subprocess.run(["git", "clone", "-q", "--bare", origin, remote], check=True)
    folders = [tmp_path / f"clone{number}" for number in range(3)]
    for folder in folders:
        subprocess.run(["git", "clone", "-q", remote, folder], check=True)
        for identity in (("user.name", "T"), ("user.email", "t@e.org")):
            subprocess.run(["git", "config", *identity], cwd=folder, check=True)

    with postgres() as server:
        args = ("run", "chaos.yaml", "--remote", "origin", "--storage", server.url)
        workers = {folder: start(folder, *args, log=log) for folder in folders}
        kills = 0
        while any(worker.poll() is None for worker in workers.values()):
            time.sleep(chance.uniform(0.5, 3))
            if kills < 9:
                if kills % 4 == 3:
                    server.kill()
                    time.sleep(chance.uniform(0, 2))
                    server.start()
                else:
                    victim = chance.choice(folders)
                    os.kill(workers[victim].pid, signal.SIGKILL)
                    workers[victim].wait()
                kills += 1
            for folder, worker in workers.items():
                if worker.poll() not in (None, 0):
                    output = worker.communicate()[0]
                    begun_without_database = output.startswith("error: --storage: ")
                    assert worker.returncode == -signal.SIGKILL or begun_without_database, output
                    workers[folder] = start(folder, *args, log=log)
        names = [f"chaos-{name}-s{seed}" for name in settings for seed in (0, 1)]
        states = [
            (trial.state, trial.user_attrs.get("name", ""))
            for trial in study_of(server.url, origin, "chaos").trials
        ]

    assert kills == 9
    # every setting exactly once, and none in the air
    assert sorted(name for state, name in states if state == TrialState.COMPLETE) == sorted(
        name[6:] for name in names
    )
    assert {state for state, _ in states} <= {TrialState.COMPLETE, TrialState.FAIL}
    # a training runs again only where it was killed
    wanted = {(str(seed), str(number / 10)) for number in range(1, 7) for seed in (0, 1)}
    assert set(trained(tmp_path)) == wanted
    assert len(trained(tmp_path)) <= len(wanted) + 3 * kills
    # all pushed, with their files
    assert experiments(remote) == sorted(names)
    files = {
        path.relative_to(store / "files/md5").as_posix().replace("/", "")
        for path in store.rglob("*")
        if path.is_file()
    }
    for ref in refs(remote):
        lock = yaml.safe_load(git(remote, "show", f"{ref}:dvc.lock"))["stages"]
        assert {
            out["md5"] for stage in lock.values() for out in stage["outs"] if "models" in out["path"]
        } <= files
    # and no process is left
    assert all(gone(folder) for folder in folders)


def test_workers_that_come_first_at_once_all_find_the_tables(tmp_path: Path) -> None:
    code = "import sys; from sweeps.storage import connect; connect(sys.argv[1], 1)"
    args = [sys.executable, "-W", "ignore", "-c", code, f"sqlite:///{tmp_path}/studies.db"]
    first = [subprocess.Popen(args, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate()[1] for process in first]
    assert [process.returncode for process in first] == [0, 0, 0, 0], errors
