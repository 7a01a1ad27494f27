"""What DVC records is what made the results, whatever happens while a stage runs: with the real DVC."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.project import (
    TINY,
    accident,
    change,
    command,
    commit,
    copy_project,
    dvc,
    executed,
    series,
    variables,
)

pytestmark = pytest.mark.slow
LATE = (2, r"\.pt$")  # when the second epoch's checkpoint is written


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_project(tmp_path_factory.mktemp("truth") / "project", TINY)
    dvc(folder, "repro", "download")
    return folder


@pytest.fixture
def project(downloaded: Path, tmp_path: Path) -> Path:
    """A project that has its images, and has trained nothing."""
    return Path(shutil.copytree(downloaded, tmp_path / "project", symlinks=True))


def meanwhile(shell_command: str) -> dict[str, str]:
    """The environment in which this command runs in the middle of a training."""
    return accident("run", *LATE) | {"ACCIDENT_COMMAND": shell_command}


def written(log: Path, *words: str) -> str:
    """What stands in ``log`` once it has one of ``words``, or after a minute."""
    deadline = time.monotonic() + 60
    while not any(word in (text := log.read_text()) for word in words) and time.monotonic() < deadline:
        time.sleep(0.1)
    return text


def hidden_in_the_lock(folder: Path) -> list[int] | None:
    """What `dvc.lock` says of the baseline's width."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return (
        lock["train_baseline"]["params"]["params.yaml"]["baseline"]["hidden"]
        if "train_baseline" in lock
        else None
    )


def test_a_training_is_recorded_with_what_made_it_and_never_lost(project: Path) -> None:
    params = (project / "params.yaml").read_text()
    # an experiment beside it, which DVC refuses only when it has written its value
    refused = command(
        project,
        "dvc",
        "repro",
        "train_baseline",
        **meanwhile("dvc exp run -S 'baseline.hidden=[64]' train_baseline || true"),
    )
    assert "epoch 2/2" in refused.stderr
    assert refused.returncode
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    assert (
        "params.yaml changed while this ran: baseline.hidden was [16] and is [64]: what was trained is kept"
        in line
    )
    assert "git checkout -- params.yaml" in line
    assert hidden_in_the_lock(project) is None
    assert not (project / "models/baseline.safetensors").exists()

    # put back, it costs no training; but now DVC cannot keep the model: no folder takes a new file
    (project / "params.yaml").write_text(params)
    folders = [project / f".dvc/cache/files/md5/{number:02x}" for number in range(256)]
    blocked = [folder for folder in folders if not folder.exists()]
    for folder in blocked:
        folder.write_text("in the way")
    failed = command(project, "dvc", "repro", "-s", "train_baseline")
    assert failed.returncode
    assert "baseline: takes the training that has ended after epoch 2\n" in failed.stderr
    assert "baseline: test accuracy" in failed.stderr
    assert hidden_in_the_lock(project) is None

    for folder in blocked:
        folder.unlink()
    recorded = command(project, "dvc", "repro", "-s", "train_baseline")
    assert recorded.returncode == 0, recorded.stderr
    assert "epoch" not in recorded.stderr.replace("ended after epoch 2", "")
    assert hidden_in_the_lock(project) == [16]
    assert dvc(project, "status", "train_baseline").strip().endswith("up to date.")

    # now it is recorded: who forces it wants it trained
    forced = command(project, "dvc", "repro", "-s", "-f", "train_baseline")
    assert "baseline: epoch 1/2" in forced.stderr
    assert "takes" not in forced.stderr


def test_a_model_that_is_chosen_anew_meanwhile_is_not_recorded_as_the_other(project: Path) -> None:
    change(project, "viz.model", "cnn")
    refused = command(
        project,
        "dvc",
        "repro",
        "visualize_filters",
        **meanwhile("sed -i 's/model: cnn/model: augmented/' params.yaml"),
    )
    assert refused.returncode
    assert "viz.model is 'cnn' in the command and 'augmented' in params.yaml, which" in refused.stderr
    assert list(yaml.safe_load((project / "dvc.lock").read_text())["stages"]) == ["download", "train_cnn"]


@pytest.mark.parametrize(
    ("shell", "number"), [("bash", signal.SIGKILL), ("dash", signal.SIGTERM), ("dash", signal.SIGKILL)]
)
def test_a_stage_whose_dvc_was_ended_ends(project: Path, shell: str, number: signal.Signals) -> None:
    if not (path := shutil.which(shell)):
        pytest.skip(f"no {shell} here")
    change(project, "train.epochs", 300)
    with subprocess.Popen(
        ["dvc", "repro", "-s", "train_baseline"],
        cwd=project,
        env=variables(SHELL=path, **meanwhile(f"kill -{number.value} $(cat dvc.pid)")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        (project / "dvc.pid").write_text(str(process.pid))
        _, log = process.communicate(timeout=120)  # until the stage, too, has closed it
    assert process.returncode == -number
    *_, last = log.splitlines()
    ended = rf"the DVC \(process {process.pid}\) that started this stage has ended: "
    stopped = r"baseline: stopped after epoch (\d+) of 300; the same command continues from there"
    match = re.match(ended + stopped, last)
    assert match, log
    assert int(match[1]) < 200
    assert not (project / "models/baseline.safetensors").exists()
    assert len(list((project / "runs/checkpoints").glob("*.pt"))) == 1


def test_a_stage_started_by_hand_outlives_what_started_it(project: Path) -> None:
    """Here a shell that has exported DVC's variables and ends at once; it also says nothing of a DVC."""
    log = project / "log"
    command(
        project,
        "bash",
        "-c",
        f"trap '' HUP; {sys.executable} -m stages.train_baseline >{log} 2>&1 & disown",
        DVC_ROOT=str(project),
        DVC_STAGE="train_cnn",
    )
    said = written(log, "test accuracy")
    assert "baseline: test accuracy" in said
    assert "DVC" not in said


def test_a_temporary_experiment_beside_a_run_in_the_workspace(project: Path) -> None:
    """Both want the same training, which the one begins: the other waits and takes it."""
    commit(project, "images")
    start = "dvc exp run --temp train_baseline >temp.log 2>&1 &"
    wait = "i=0; while ! grep -q waits temp.log; do sleep 0.2; i=$((i+1)); [ $i -lt 300 ] || exit 1; done"
    output = command(
        project,
        "dvc",
        "repro",
        "train_baseline",
        **(
            accident("run", 1, r"\.pt$")
            | {"ACCIDENT_COMMAND": f"env -u ACCIDENT -u PYTHONPATH {start} {wait}"}
        ),
    )
    assert output.returncode == 0, output.stderr
    assert "baseline: epoch 2/2" in output.stderr
    log = written(project / "temp.log", "Ran experiment", "ERROR")
    assert "baseline: takes the training that has ended after epoch 2" in log
    assert "Ran experiment(s)" in log, log
    assert "baseline: epoch" not in log
    assert executed(log) == ["train_baseline"]


def test_a_training_can_be_watched(project: Path) -> None:
    """By DVC's commands, beside the last commit's; what they see is whole, and not final."""
    (project / "metrics/predictions").mkdir(parents=True)
    result = {"test_accuracy": 0.5, "train_accuracy": 0.6, "history": [{"epoch": 1, "test_accuracy": 0.5}]}
    for name in ("baseline", "cnn"):
        (project / f"metrics/{name}.json").write_text(json.dumps(result))
    commit(project, "results")
    looks = [
        "dvc metrics show --json >shown.json",
        "dvc plots diff HEAD workspace --json >plots.json",
        "dvc exp show --json >experiments.json",
    ]
    dvc(project, "repro", "train_baseline", **meanwhile(f"unset ACCIDENT PYTHONPATH; {' && '.join(looks)}"))
    shown = json.loads((project / "shown.json").read_text())[""]["data"]["metrics/baseline.json"]["data"]
    assert 0 < shown["test_accuracy"] < 1
    assert "train_accuracy" not in shown
    (chart,) = json.loads((project / "plots.json").read_text())["data"]["accuracy"]
    rows = chart["content"]["data"]["values"]
    assert {(row["rev"], series(row)[0], row["epoch"]) for row in rows} == {
        ("HEAD", "baseline.json", 1),
        ("HEAD", "cnn.json", 1),
        ("workspace", "baseline.json", 1),
        ("workspace", "cnn.json", 1),
    }
    (workspace, *_) = json.loads((project / "experiments.json").read_text())
    figures = workspace["data"]["metrics"]["metrics/baseline.json"]["data"]
    assert figures["test_accuracy"] == shown["test_accuracy"]
    assert "train_accuracy" in json.loads((project / "metrics/baseline.json").read_text())


def test_another_python_ends_with_one_line(project: Path) -> None:
    """`dvc` from elsewhere starts the first `python` of the path, here one without our packages."""
    (project / "metrics/cnn.json").write_text("{}")
    commit(project, "results")
    bare = project / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    script = Path(sys.executable).parent / "dvc"
    result = command(
        project, str(script), "repro", "-s", "train_cnn", PATH=f"{bare}/bin:{os.environ['PATH']}"
    )
    assert result.returncode
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert re.match(
        rf"error: 'python' is {bare}/bin/python, Python [\d.]+, without the package '\w+': ", line
    )
    assert "activate the environment" in line
    assert line.endswith("(to restore what is committed: git checkout -- metrics)")
    assert "Traceback" not in result.stderr
