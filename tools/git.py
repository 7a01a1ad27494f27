"""What Git knows of the project."""

import os
import signal
import subprocess
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any

from stages.common.errors import UserError

LONGEST = 600  # seconds that a Git command may take


def forget_other_repositories() -> None:
    """Remove the variables by which a Git hook names another repository than that of the folder."""
    for name in output("rev-parse", "--local-env-vars").split():
        os.environ.pop(name, None)


def commit_of(revision: str) -> str:
    """The commit that ``revision`` names.

    Raises:
        UserError: there is no Git here, or it does not know the revision.
    """
    found = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found.returncode:  # quiet is Git about an unknown revision alone
        reason = " ".join(found.stderr.split()) or "fetch it, or ask for another"
        raise UserError(f"'{revision}' is no revision that Git knows here: {reason}")
    return found.stdout.strip()


def show(commit: str, path: str) -> str | None:
    """The text of the project's file ``path`` at ``commit``, None where it has none."""
    # ./ because the project may be a folder of a larger repository
    found = git("show", f"{commit}:./{path}")
    return None if found.returncode else found.stdout


def output(*words: str, folder: Path = Path()) -> str:
    """What Git prints in ``folder``, without the space around it.

    Raises:
        UserError: it failed.
    """
    found = git(*words, folder=folder)
    if found.returncode:
        problem = " ".join(found.stderr.split()) or f"status {found.returncode}"
        raise UserError(f"git {' '.join(words[:2])} failed: {problem}")
    return found.stdout.strip()


def git(*words: str, folder: Path = Path()) -> subprocess.CompletedProcess[str]:
    """Run Git in ``folder``, without a terminal, where it or ssh could ask for a password and wait.

    Raises:
        UserError: it is not installed, or does not end.
    """
    options: Any = {"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE, "start_new_session": True}
    options |= {"cwd": folder, "env": {**os.environ, "GIT_TERMINAL_PROMPT": "0"}, "errors": "replace"}
    try:
        with Popen(["git", *words], **options) as process:
            try:
                printed, said = process.communicate(timeout=LONGEST)
            except BaseException:
                if hasattr(os, "killpg"):  # not on Windows
                    os.killpg(process.pid, signal.SIGKILL)  # with the hooks and the ssh that it has started
                process.kill()
                raise
    except FileNotFoundError:
        raise UserError("git is not installed, and nothing else knows revisions: install it") from None
    except TimeoutExpired:
        raise UserError(f"git {words[0]} did not end within {LONGEST} s: see what it waits for") from None
    return subprocess.CompletedProcess(words, process.returncode, printed, said)
