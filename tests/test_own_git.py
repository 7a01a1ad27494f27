"""The tests use their own Git configuration and repositories, whoever starts them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.project import ROOT

REPOSITORIES = "tests/sweeps/test_results.py::test_the_metrics_of_a_training_that_has_not_ended_are_no_result"


def test_a_hook_and_a_user_who_signs_change_nothing_and_lose_nothing(tmp_path: Path) -> None:
    """A Git hook in a linked worktree starts them, of a user whose commits are signed and have hooks."""

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=T", "-c", "user.email=t@e.org", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "-q", "outer")
    git("-C", "outer", "commit", "-q", "--allow-empty", "-m", "outer")
    git("-C", "outer", "worktree", "add", "-q", "../linked")
    before = git("-C", "outer", "for-each-ref"), git("-C", "outer", "config", "--local", "--list")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    settings = f"[commit]\n\tgpgsign = true\n[gpg]\n\tprogram = /bin/false\n[core]\n\thooksPath = {hooks}\n"
    (tmp_path / ".gitconfig").write_text(settings)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_CONFIG")}
    hook = {
        "GIT_DIR": str(tmp_path / "outer/.git/worktrees/linked"),
        "GIT_WORK_TREE": str(tmp_path / "linked"),
        "GIT_INDEX_FILE": str(tmp_path / "outer/.git/worktrees/linked/index"),
        "GIT_PREFIX": "",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "hook",
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", REPOSITORIES]
    result = subprocess.run(command, cwd=ROOT, env=clean | hook, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (git("-C", "outer", "for-each-ref"), git("-C", "outer", "config", "--local", "--list")) == before
    assert git("-C", "linked", "status", "--porcelain") == ""
