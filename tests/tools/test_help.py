"""Every command answers --help, and refuses what it does not know before it does anything."""

import re
import sys
from importlib import import_module

import pytest

from tests.project import ROOT

COMMANDS = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for folder in ("tools", "sweeps", "theory", "tests")
    for file in (ROOT / folder).rglob("*.py")
    if re.search(r"^if __name__ == .__main__.:", file.read_text(encoding="utf-8"), re.MULTILINE)
)


def test_commands_are_found() -> None:
    assert {"tools.quickstart", "sweeps.__main__", "tests.bench", "tests.sweeps.bench"} <= {*COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_answers_help_and_refuses_what_it_does_not_know(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = import_module(name).main
    for word, status, where in (("--help", 0, 0), ("--misspelt", 2, 1), ("--hel", 2, 1)):
        monkeypatch.setattr(sys, "argv", [name, word])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == status
        assert capsys.readouterr()[where].startswith("usage: ")
