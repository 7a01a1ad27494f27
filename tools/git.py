"""What Git knows of the project at a revision."""

import subprocess

from stages.common.errors import UserError


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


def git(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Git.

    Raises:
        UserError: it is not installed.
    """
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError("git is not installed, and nothing else knows revisions: install it") from None
