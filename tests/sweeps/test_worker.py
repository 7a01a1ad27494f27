"""Sweeps: every trial is an experiment, nothing is left of one that was ended, and nothing is lost."""

import csv
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from stages.common.errors import UserError
from tests.project import TINY, commit, copy_project, dvc
from tests.sweeps.support import (
    TWO,
    embedded,
    epochs_found,
    experiments,
    fake_project,
    git,
    gone,
    postgres,
    processes,
    refs,
    refusal,
    start,
    states,
    store_of,
    study_of,
    sweep,
    trained,
    write_search,
)

pytestmark = pytest.mark.slow

ERASING = [{"RandomErasing": {"p": 0.25, "value": "random"}}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_project(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy of the pretended project."""
    return Path(shutil.copytree(made, tmp_path / "project", symlinks=True))


def row(folder: Path, search: str, trial: str) -> dict[str, str]:
    """The row of ``trial`` that ``status`` shows, by column."""
    lines = [line.strip("|").split("|") for line in sweep(folder, "status", search).splitlines()]
    rows = [dict(zip(map(str.strip, lines[0]), map(str.strip, line), strict=True)) for line in lines[2:-2]]
    return next(row for row in rows if row["trial"] == trial)


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_every_setting_and_seed_becomes_an_experiment_and_a_line_of_the_report(project: Path) -> None:
    write_search(project, "two", seeds=[0, 1], settings=TWO)
    before = git(project, "rev-parse", "HEAD")
    output = sweep(project, "run", "two.yaml")
    names = ["two-strong-s0", "two-strong-s1", "two-weak-s0", "two-weak-s1"]
    assert experiments(project) == names
    assert [line.split(":")[0].rsplit("-", 1)[0] for line in output.splitlines()] == names
    assert trained(project) == [("0", "0.5"), ("1", "0.5"), ("0", "0.1"), ("1", "0.1")]
    assert (project / "log").read_text().count("download") == 1  # when the project was made

    # the checkout is as it was, and shows, compares and adopts them
    assert git(project, "rev-parse", "HEAD") == before
    assert git(project, "status", "--porcelain") == ""
    assert not list(project.glob("runs/tmp/*/*"))
    assert not list(project.glob("runs/sweep/two@*/*"))
    rows = csv.DictReader(dvc(project, "exp", "show", "--csv").splitlines())
    shown = {row["Experiment"]: float(row["validation_accuracy"]) for row in rows if row["Experiment"]}
    assert [shown[name] for name in sorted(shown)] == pytest.approx([0.5, 0.51, 0.9, 0.91])
    last = max(shown)
    diff = json.loads(dvc(project, "metrics", "diff", "--json", "HEAD", last))
    assert diff["metrics/regularized.json"]["validation_accuracy"]["new"] == pytest.approx(0.91)
    dvc(project, "exp", "apply", last)
    assert (project / "models/regularized.safetensors").read_text().startswith("0.91")
    git(project, "checkout", "-q", "--", ".")

    table = sweep(project, "report", "two").splitlines()
    values = [0.9 - 0.5, 0.91 - 0.5]
    assert [cell.strip() for cell in table[3].strip("|").split("|")] == [
        *("regularized", "weak"),
        f"{statistics.mean(values):.4f}",
        f"{statistics.stdev(values):.4f}",
        *("+0.4000", "0.9050", "+0.5000", "2"),
    ]
    content = json.loads((project / "sweeps/results/two.json").read_text())
    assert content["commit"] == before
    assert content["settings"]["weak"]["changes"] == {"reg.dropout": 0.1}
    seed = content["settings"]["weak"]["seeds"]["1"]
    assert seed["experiment"] == last
    assert seed["train_regularized"]["test_accuracy"] == pytest.approx(0.41)
    assert (project / "sweeps/results/two.png").read_bytes().startswith(b"\x89PNG")

    # all of it is done: once more does nothing, beside the report and after commits that change nothing of it
    assert sweep(project, "run", "two.yaml") == ""
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("image: ", "image:  # viz is not read\n    "))
    commit(project, "the report, and a parameter of another stage")
    assert sweep(project, "worker", "two") == ""
    assert len(trained(project)) == 4
    # more seeds are more trials, and what is gone is made again: from the run cache, without a training
    write_search(project, "two", seeds=[0, 1, 2], settings=TWO)
    git(project, "update-ref", "-d", refs(project)[0])
    assert re.fullmatch(r"two-strong-s0-\w{6} is gone: run .*", refusal(project, "report", "two"))
    assert row(project, "two", "strong-s0")["state"] == "left"
    sweep(project, "run", "two.yaml")
    assert experiments(project) == sorted([*names, "two-strong-s2", "two-weak-s2"])
    assert trained(project)[4:] == [("2", "0.5"), ("2", "0.1")]
    # what the targets depend on makes another study
    (project / "train.py").write_text((project / "train.py").read_text() + "# another\n")
    assert "not as in commit" in refusal(project, "run", "two.yaml")
    assert "train.py" in refusal(project, "worker", "two")
    commit(project, "another training")
    assert "two has not been run with the code and parameters of" in refusal(project, "worker", "two")


def test_a_search_sees_validation_accuracy_only_and_survives_a_setting_that_fails(project: Path) -> None:
    space = {"reg.dropout": {"categorical": {"choices": [0.1, 0.9]}}}
    sampler = {"RandomSampler": {"seed": 0}}  # takes 0.9, then 0.1
    write_search(project, "find", seeds=[0, 1], space=space, trials=2, sampler=sampler)
    sweep(project, "run", "find.yaml")
    trials = {trial.params["reg.dropout"]: trial for trial in embedded(project, "find").trials}
    assert trials[0.9].value == 0
    assert trials[0.1].value == pytest.approx(0.905)  # the mean of both seeds'
    assert trials[0.1].intermediate_values == pytest.approx({1: 0.45, 2: 0.9})
    assert {trial.state for trial in trials.values()} == {TrialState.COMPLETE}
    assert trained(project).count(("0", "0.9")) == 1
    table = sweep(project, "report", "find")
    assert "test" not in (project / "sweeps/results/find.json").read_text() + table
    assert "| reg.dropout 0.1 " in table
    assert "Failed: reg.dropout 0.9 (reg.dropout is 0.9, but must be less)." in table
    # other choices are another study; what is there already is not trained again
    space["reg.dropout"]["categorical"]["choices"] = [0.1, 0.2]
    write_search(project, "find", seeds=[0, 1], space=space, trials=2, sampler=sampler)
    sweep(project, "run", "find.yaml")
    assert "reg.dropout 0.9" not in sweep(project, "status", "find")
    assert trained(project).count(("0", "0.1")) == 1


def test_a_changed_value_under_a_kept_name_is_another_trial(project: Path) -> None:
    for dropout in (0.5, 0.1, 0.5):
        write_search(project, "one", settings={"one": {"reg.dropout": dropout}}, fixed={"train.epochs": 1})
        sweep(project, "run", "one.yaml")
        assert f"{1 - dropout - 0.5:.4f}" in sweep(project, "report", "one")
    assert len(trained(project)) == len(refs(project)) == 2
    # a report that can't be whole changes nothing
    before = (project / "sweeps/results/one.json").read_text()
    sweep(project, "stop", "one", "one-s0")
    write_search(project, "one", settings={"one": {"reg.dropout": 0.2}}, fixed={"train.epochs": 1})
    sweep(project, "run", "one.yaml")
    json_file, picture = (project / f"sweeps/results/one.{kind}" for kind in ("json", "png"))
    drawn = picture.read_bytes()
    picture.unlink()
    picture.mkdir()
    with pytest.raises(OSError, match=r"one\.png"):
        sweep(project, "report", "one")
    assert json_file.read_text() == before
    picture.rmdir()
    picture.write_bytes(drawn)
    json_file.unlink()
    json_file.mkdir()
    with pytest.raises(OSError, match=r"one\.json"):
        sweep(project, "report", "one")
    assert picture.read_bytes() == drawn


def test_pruning_ends_the_training_within_an_epoch_and_leaves_nothing(project: Path) -> None:
    write_search(
        project,
        "prune",
        grid={"reg.dropout": [0.5, 0.1]},
        fixed={"train.epochs": 8},
        pruner={"ThresholdPruner": {"lower": 0.2, "n_warmup_steps": 2}},  # then 0.5 * 2/8 and 0.9 * 2/8
    )
    output = sweep(project, "run", "prune.yaml")
    assert "0000: pruned after epoch 2" in output
    assert gone(project / "runs")
    assert trained(project, "end") == [("0", "0.1")]
    assert experiments(project) == ["prune-0001-s0"]
    assert states(project, "prune") == [TrialState.PRUNED, TrialState.COMPLETE]
    assert not list(project.glob("runs/tmp/*/*"))
    assert json.loads((project / ".dvc/tmp/rwlock").read_text()) == {}
    assert git(project, "status", "--porcelain") == ""
    assert "reg.dropout 0.5 (epoch 2, 0.1250)" in sweep(project, "report", "prune")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_worker_leaves_no_process_and_the_next_one_goes_on(project: Path, signum: int) -> None:
    write_search(project, "long", settings=TWO, fixed={"train.epochs": 4})
    worker = start(project, "run", "long.yaml")
    (metrics,) = wait_for_files(project, "runs/tmp/*/long-strong-s0-*/runs/checkpoints/*.json")
    wait_for(lambda: len(json.loads(metrics.read_text())) == 2)
    assert any("train.py" in line for line in processes(project))
    os.kill(worker.pid, signum)
    output, _ = worker.communicate(timeout=10)
    assert gone(project), processes(project)
    clones = list(project.glob("runs/tmp/*/*/dvc.yaml"))
    if signum == signal.SIGKILL:
        assert len(clones) == 1
    else:
        assert worker.returncode == 128 + signum
        assert output.splitlines()[-1].startswith("stopped: the next worker goes on with the running trial")
        assert clones == []
    assert experiments(project) == []
    place, options = project, list[str]()
    if signum == signal.SIGTERM:  # as on another machine, where what is kept is shared
        place = Path(shutil.copytree(project, project.with_name("other"), ignore=lambda *_: ["sweep"]))
        options = ["--storage", store_of(project), "--checkpoints", f"{project}/runs/sweep"]
    output = sweep(place, "worker", "long", *options)
    assert experiments(place) == ["long-strong-s0", "long-weak-s0"]
    assert Counter(trained(place, "end")) == {("0", "0.5"): 1, ("0", "0.1"): 1}
    assert re.search(r"long-strong-s0-\w{6}: regularized: continues after epoch 2", output)
    assert sorted(epochs_found(place)) == [0, 0, 2]
    assert not list(place.glob("runs/tmp/*/*"))  # also what SIGKILL left
    assert not list(project.glob("runs/sweep/long@*/*"))


def wait_for_files(folder: Path, pattern: str) -> list[Path]:
    wait_for(lambda: list(folder.glob(pattern)))
    return list(folder.glob(pattern))


def test_whose_fault_it_was(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.progress.ATTEMPTS", 2)
    settings = {"bad": {"reg.dropout": 0.9}, "large": {"reg.dropout": 0.8}, "none": {"data.seed": 7}, **TWO}
    write_search(project, "bad", settings=settings, fixed={"train.epochs": 1})
    with pytest.raises(UserError, match="2 of 5 trials failed: 'python -m sweeps status bad' says which"):
        sweep(project, "run", "bad.yaml")
    # what a stage before says of a parameter that this trial changes ends no worker
    assert row(project, "bad", "none-s0")["why"] == "no images"
    # a failure that would repeat was tried once, memory that ran out twice: the second time it succeeded
    assert Counter(value for _, value in trained(project)) == {"0.9": 1, "0.8": 2, "0.5": 1, "0.1": 1}
    assert experiments(project) == ["bad-large-s0", "bad-strong-s0", "bad-weak-s0"]
    shown = row(project, "bad", "bad-s0")
    assert (shown["changes"], shown["state"], shown["attempts"]) == ("reg.dropout 0.9", "failed", "1")
    assert shown["worker"].split()[1] == str(os.getpid())
    assert shown["why"] == "reg.dropout is 0.9, but must be less"
    assert f"error: {shown['why']}" in (project / shown["log"]).read_text()
    sweep(project, "retry", "bad", "bad-s0")
    assert row(project, "bad", "bad-s0")["state"] == "left"
    sweep(project, "stop", "bad", "bad-s0")
    assert row(project, "bad", "bad-s0")["state"] == "stopped"
    sweep(project, "stop", "bad", "none-s0")
    assert sweep(project, "run", "bad.yaml") == ""
    assert "bad has no trial bed-s0: it has bad-s0, " in refusal(project, "stop", "bad", "bed-s0")
    # a failure before a training is the worker's, and costs no trial
    (project / "download.py").write_text("import sys; sys.exit('error: no archive')")
    commit(project, "a download that fails")
    assert refusal(project, "run", "bad.yaml") == "no archive"
    with pytest.raises(UserError, match=r"^no archive$"):
        sweep(project, "run", "bad.yaml")
    assert row(project, "bad", "bad-s0")["state"] == "left"
    assert len(trained(project)) == 5


def test_a_trial_is_stopped_from_elsewhere(project: Path) -> None:
    write_search(project, "long", settings=TWO, fixed={"train.epochs": 30})
    worker = start(project, "run", "long.yaml")
    wait_for(lambda: trained(project))
    assert row(project, "long", "strong-s0")["state"] == "running"
    for trial in ("strong-s0", "weak-s0"):
        sweep(project, "stop", "long", trial)
    output, _ = worker.communicate(timeout=20)
    assert worker.returncode == 0, output
    assert "strong-s0: given to another worker, or stopped" in output
    assert gone(project)
    assert trained(project, "end") == []
    # without a remote, another clone would see none of its experiments, and train all anew
    git(project, "clone", "-q", ".", "../clone")
    words = refusal(project.with_name("clone"), "run", "long.yaml", "--storage", store_of(project))
    assert words.endswith("go to another clone: work there, or run it with --remote in both")


def test_workers_share_the_processors_and_one_display(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    write_search(project, "many", settings=TWO, fixed={"train.epochs": 1})
    together = start(project, "run", "many.yaml", "--workers", "2")
    output, _ = together.communicate(timeout=120)
    assert together.returncode == 0, output
    assert len(experiments(project)) == 2
    assert set(Counter(trained(project)).values()) == {1}
    threads = [line.split()[1] for line in (project / "log").read_text().splitlines() if "threads" in line]
    assert set(threads[1:]) == {str(max(1, len(os.sched_getaffinity(0)) // 2))}  # the first made the project
    assert sum(line.startswith("many-") for line in output.splitlines()) == 2
    # where it is killed, all its workers and trainings end
    write_search(project, "more", settings=TWO, fixed={"train.epochs": 60})
    together = start(project, "run", "more.yaml", "--workers", "2")
    wait_for(lambda: len(trained(project)) == 4)
    os.kill(together.pid, signal.SIGKILL)
    together.communicate()
    assert gone(project)


def test_the_real_training_gives_what_it_gives_without_a_sweep(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project", TINY)
    dvc(folder, "repro", "download")
    commit(folder, "a data set")
    write_search(
        folder,
        "off",
        settings={"off": {"reg.one_cycle_peak": None, "reg.batch_norm": False, "aug.extra": ERASING}},
        seeds=[3],
        fixed={"train.epochs": 12},
    )
    worker = start(folder, "run", "off.yaml")
    wait_for_files(folder, "runs/sweep/off@*/off-off-s3-*/checkpoints/*.pt")
    worker.terminate()
    assert worker.wait() == 143
    assert ": regularized: continues after epoch" in sweep(folder, "worker", "off")
    changes = ["-S", "reg.one_cycle_peak=null", "-S", "reg.batch_norm=false", "-S", "train.seed=3"]
    changes += ["-S", "train.epochs=12"]
    changes += ["-S", "aug.extra=[{RandomErasing: {p: 0.25, value: random}}]"]
    dvc(folder, "exp", "run", "-n", "direct", "--force", "--single-item", *changes, "train_regularized")
    of = [json.loads(git(folder, "show", f"{ref}:metrics/regularized.json")) for ref in refs(folder)]
    assert of[0] == of[1]
    params = yaml.safe_load(git(folder, "show", f"{refs(folder)[1]}:params.yaml"))
    assert params["reg"]["one_cycle_peak"] is None
    assert params["reg"]["batch_norm"] is False
    assert params["aug"]["extra"] == ERASING


def test_nothing_is_lost_when_workers_and_the_database_are_killed(tmp_path: Path) -> None:
    """Three workers in clones of their own, a Git remote, a DVC remote, and SIGKILL at random moments."""
    chance = random.Random(os.environ.get("CHAOS_SEED", "0"))
    store, log, remote = tmp_path / "store", tmp_path / "log", tmp_path / "remote.git"
    store.mkdir()
    config = "    remote = store\n['remote \"store\"']\n    url = ../../store\n"
    origin = fake_project(tmp_path / "origin", config)
    shutil.copy(origin / "log", log)
    settings = {f"d{number}": {"reg.dropout": number / 10} for number in range(1, 5)}
    write_search(origin, "chaos", seeds=[0, 1], settings=settings)
    dvc(origin, "push")
    subprocess.run(["git", "clone", "-q", "--bare", origin, remote], check=True)
    folders = [tmp_path / f"clone{number}" for number in range(3)]
    for folder in folders:
        subprocess.run(["git", "clone", "-q", remote, folder], check=True)
        for identity in (("user.name", "T"), ("user.email", "t@e.org")):
            subprocess.run(["git", "config", *identity], cwd=folder, check=True)

    args = ("run", "chaos.yaml", "--remote", "origin")
    with postgres() as server:
        variables = {"SWEEP_STORAGE": server.pooler() or server.url}

        def begin(folder: Path) -> subprocess.Popen[str]:
            return start(folder, *args, log=log, variables=variables)

        workers = {folder: begin(folder) for folder in folders}
        kills, said, end = 0, "", time.monotonic() + 300
        while any(worker.poll() is None for worker in workers.values()):
            assert time.monotonic() < end, said
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
                    said = worker.communicate()[0]
                    if worker.returncode != -signal.SIGKILL:  # as the database was away
                        assert said.splitlines()[-1].startswith("error: --storage postgresql"), said
                    workers[folder] = begin(folder)
        names = [f"chaos-{name}-s{seed}" for name in settings for seed in (0, 1)]
        states = [
            (trial.state, trial.user_attrs.get("name", "")) for trial in study_of(server.url, "chaos").trials
        ]

    assert kills == 9
    # every setting exactly once, and none in the air
    assert sorted(name for state, name in states if state == TrialState.COMPLETE) == sorted(
        name[6:] for name in names
    )
    assert {state for state, _ in states} <= {TrialState.COMPLETE, TrialState.FAIL}
    # a training runs again only where it was killed
    wanted = {(str(seed), str(number / 10)) for number in range(1, 5) for seed in (0, 1)}
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
