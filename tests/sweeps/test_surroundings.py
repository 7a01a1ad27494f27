"""Sweeps on other people's machines: their Git, DVC and cluster settings hold, or stop a worker at once."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.project import ROOT, make_repository
from tests.sweeps.support import (
    TWO,
    experiments,
    fake_project,
    git,
    refs,
    refusal,
    start,
    states,
    sweep,
    trained,
    write_search,
)

pytestmark = pytest.mark.slow

HOOK = '#!/bin/sh\necho "$0 $@" >> "$HOOK_LOG"\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository, of which the project is a folder, in a folder beside what it has remotes for."""
    folder = tmp_path_factory.mktemp("made")
    project = fake_project(folder / "course/hw3")
    shutil.rmtree(project / ".git")
    (folder / "course/README").write_text("a course")
    make_repository(folder / "course")
    return folder


@pytest.fixture
def surroundings(made: Path, tmp_path: Path) -> Path:
    """A copy of it, with a Git remote and a DVC remote whose addresses are relative."""
    folder = Path(shutil.copytree(made, tmp_path / "made", symlinks=True))
    write_search(folder / "course/hw3", "two", settings=TWO, fixed={"train.epochs": 1})
    git(folder, "clone", "-q", "--bare", "course", "hub.git")
    git(folder / "course", "remote", "add", "origin", "../nowhere.git")
    git(folder / "course", "config", "remote.origin.pushurl", "../hub.git")
    git(folder / "course", "config", "url.../hub.git.insteadOf", "../nowhere.git")
    settings = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../../store\n"
    (folder / "course/hw3/.dvc/config.local").write_text(
        f"{settings}[cache]\n    shared = group\n    type = copy\n"
    )
    return folder


def test_what_holds_in_the_checkout_holds_in_a_trial(surroundings: Path, tmp_path: Path) -> None:
    """Hooks and signatures of the user's Git, a name from variables alone, a folder of a repository,
    addresses and settings of this checkout alone, another file system, variables of another repository.
    """
    project, other = surroundings / "course/hw3", tmp_path / "other"
    git(tmp_path, "init", "-q", "other")
    git(
        other, "-c", "user.name=T", "-c", "user.email=t@e.org", "commit", "-q", "--allow-empty", "-m", "other"
    )
    before = git(other, "rev-parse", "HEAD"), git(other, "symbolic-ref", "HEAD")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for hook in ("pre-push", "post-checkout"):
        (hooks / hook).write_text(HOOK)
        (hooks / hook).chmod(0o755)
    (tmp_path / "gitconfig").write_text(
        f"[core]\n\thooksPath = {hooks}\n[commit]\n\tgpgsign = true\n[gpg]\n\tprogram = /bin/false\n"
    )
    for key in ("user.name", "user.email"):
        git(surroundings / "course", "config", "--unset", key)
    shared = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        worker = start(
            project,
            *("run", "two.yaml", "--remote", "origin"),
            tried=False,
            temporary=Path(folder),
            variables={
                "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
                "HOOK_LOG": str(tmp_path / "hook.log"),
                **{
                    f"GIT_{who}_{what}": "w@e.org"
                    for who in ("AUTHOR", "COMMITTER")
                    for what in ("NAME", "EMAIL")
                },
                "GIT_DIR": str(other / ".git"),
                "GIT_WORK_TREE": str(other),
                "GIT_INDEX_FILE": str(other / ".git/index"),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "core.bare",
                "GIT_CONFIG_VALUE_0": "true",
            },
        )
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, output
        assert not list(Path(folder).glob("*/*"))
    assert (git(other, "rev-parse", "HEAD"), git(other, "symbolic-ref", "HEAD")) == before
    assert git(other, "status", "--porcelain") == ""
    assert git(other, "config", "core.bare") == "false"
    names = ["two-strong-s0", "two-weak-s0"]
    assert experiments(surroundings / "hub.git") == experiments(surroundings / "course") == names
    assert git(project, "log", "-1", "--format=%an %ae", refs(project)[0]) == "w@e.org w@e.org"
    assert (tmp_path / "hook.log").read_text().count("pre-push origin ../hub.git") >= len(names)
    # the files are at the DVC remote, and the cache is the group's
    lock = yaml.safe_load(git(project, "show", f"{refs(project)[1]}:./dvc.lock"))["stages"][
        "train_regularized"
    ]
    (digest,) = [out["md5"] for out in lock["outs"] if "models" in out["path"]]
    assert (surroundings / f"store/files/md5/{digest[:2]}/{digest[2:]}").read_text().startswith("0.9 ")
    assert (project / f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}").stat().st_mode & 0o777 == 0o444
    assert (project / f".dvc/cache/files/md5/{digest[:2]}").stat().st_mode & 0o7777 == 0o2775


def test_what_is_wrong_is_told_before_a_training(surroundings: Path) -> None:
    project = surroundings / "course/hw3"
    run = ("run", "two.yaml", "--remote", "origin")
    local = project / ".dvc/config.local"
    settings = local.read_text()

    local.write_text("")
    assert "no remote" in refusal(project, *run)
    local.write_text(settings.replace("../../../store", "http://127.0.0.1:1/store"))
    words = refusal(project, *run)
    assert words.startswith("dvc push failed: ")
    assert Path(project, words.split()[-3].lstrip("(")).read_text()
    local.write_text(settings)
    hook = surroundings / "hub.git/hooks/update"
    hook.write_text("#!/bin/sh\necho 'no experiments here' >&2\nexit 1\n")
    hook.chmod(0o755)
    assert "no experiments here" in refusal(project, *run)
    hook.unlink()
    git(project, "config", "remote.origin.pushurl", "../nothing.git")
    assert "git push -q failed: fatal: '../nothing.git'" in refusal(project, *run)
    git(project, "config", "--unset", "remote.origin.pushurl")
    git(project, "config", "--unset", "user.email")
    git(project, "config", "user.useConfigOnly", "true")
    assert refusal(project, *run).startswith("Git knows no name for commits: git config user.name")
    git(project, "config", "user.email", "t@e.org")
    assert trained(project) == []
    assert experiments(surroundings / "hub.git") == experiments(project) == []
    assert not (project / "runs/sweep").exists() or not list(project.glob("runs/sweep/studies.db-*"))
    with pytest.raises(ValueError, match="not enough values"):  # no study has begun
        states(project, "two")
    for words, args in {
        "has not been run": ("worker", "two"),
        "connection": ("run", "two.yaml", "--storage", "postgresql://x:a@b/c%d@127.0.0.1:1/x"),
        "two-x.yaml: FileNotFoundError": ("run", "two-x.yaml"),
        "two words is no name of a search": ("run", "two words.yaml"),
        "--remote must be the name of a Git remote of this clone: origin": (
            *("run", "two.yaml", "--remote", "../hub.git"),
        ),
        "--heartbeat is 0": ("run", "two.yaml", "--heartbeat", "0"),
    }.items():
        assert words in refusal(project, *args)


def test_the_slurm_recipe_in_the_docs_runs_twice_at_once(surroundings: Path, tmp_path: Path) -> None:
    """With stand-ins for Slurm's variables, in two tasks on one node, from a clone that knows no one."""
    project = surroundings / "course/hw3"
    blocks = re.findall(r"```sh\n(#!.*?)```", (ROOT / "docs/sweeps.md").read_text(), re.DOTALL)
    (script,) = [block for block in blocks if "SBATCH" in block]
    (project / "task.sh").write_text(script)
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/activate").write_text(f"PATH={Path(sys.executable).parent}:$PATH\n")
    begun = sweep(project, "run", "two.yaml", "--remote", "origin", "--workers", "0")
    (title,) = re.findall(r"python -m sweeps worker (two@\w{8})\n", begun)
    (project / "train.py").write_text("edited while the tasks wait")
    tasks = []
    for number in range(2):
        variables = {
            "SLURM_SUBMIT_DIR": str(project),
            "SLURM_ARRAY_TASK_ID": str(number),
            "SLURM_CPUS_PER_TASK": "1",
            "STUDY": title,
            "TMPDIR": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "FAKE_LOG": str(project / "log"),
        }
        tasks.append(
            subprocess.Popen(
                ["bash", str(project / "task.sh")],
                cwd="/",
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for task in tasks:
        output, _ = task.communicate(timeout=120)
        assert task.returncode == 0, output
    assert experiments(surroundings / "hub.git") == ["two-strong-s0", "two-weak-s0"]
    assert len(trained(project)) == 2
    assert not list(tmp_path.glob("sweeps-*/*"))
