"""What is skipped on Windows, seen from any system."""

import os
import signal

import pytest

from tests import conftest


def reason(item: pytest.Item) -> str | None:
    """Why ``item`` is skipped, if it is."""
    conftest.pytest_collection_modifyitems([item])
    mark = item.get_closest_marker("skip")
    return mark.kwargs["reason"] if mark else None


def test_what_needs_posix_is_skipped_and_says_why(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reason(request.node) is None or conftest.WINDOWS
    monkeypatch.setattr(conftest, "WINDOWS", True)
    assert reason(request.node) == "Windows lacks POSIX signals"
    if request.node is None:
        os.kill(os.getpid(), signal.SIGTERM)  # what shows it


def test_the_others_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "WINDOWS", True)
    assert reason(request.node) is None


def test_a_module_that_imports_what_windows_lacks_is_skipped(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "WINDOWS", True)
    error = "E   ModuleNotFoundError: No module named 'resource'"
    report = pytest.CollectReport("tests/test_x.py", "failed", error, None)
    hook = conftest.pytest_make_collect_report(request.node.parent)
    next(hook)
    with pytest.raises(StopIteration) as end:
        hook.send(report)
    assert end.value.value.outcome == "skipped"
    assert end.value.value.longrepr[2] == "Skipped: Windows lacks Python's module resource"
