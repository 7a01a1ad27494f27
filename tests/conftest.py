import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium import webdriver

MOST_WORKERS = 8  # the longest test bounds the time, and each has torch in memory

WINDOWS = sys.platform == "win32"
# What Windows lacks, by what shows in a test's path or code that it needs it: there the test is skipped
POSIX = {
    r"largest_file|\bresource\.": "limits on the size of files",
    r"os\.kill|send_signal|\bSIG[A-Z]+\b": "POSIX signals",
    r"#!/bin/sh": "a POSIX shell",
    r"symlink_to": "symbolic links that everybody may make",
    r"tests/sweeps/test_(worker|trial)": "process groups",
    r"is_not_disturbed|IsADirectoryError": "POSIX's rules for open files and directories",
    r"\bpty\.": "pseudo-terminals",
    r"XDG_CACHE_HOME": "a cache folder that this variable moves",
    r"Connection refused": "POSIX's error messages",
}

# What is computed here is too small to share. Set before torch is imported, and inherited by the
# processes that tests start. Torch and hypothesis are not imported here: the process that hands out
# the tests to the workers would wait for them.
os.environ["OMP_NUM_THREADS"] = "1"
# A Git hook that starts the tests names its own repository, and a user's Git signs and has hooks
if shutil.which("git"):
    own = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True)
    for variable in own.stdout.split():
        os.environ.pop(variable, None)
os.environ |= {"GIT_CONFIG_GLOBAL": str(Path(__file__).with_name("gitconfig")), "GIT_CONFIG_NOSYSTEM": "1"}
# outside a repository that says otherwise, each command of DVC starts another one that reports it
os.environ["DVC_NO_ANALYTICS"] = "1"
# a shell that starts the tests in the background has SIGINT ignored, for all their processes
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto``: the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def pytest_collectstart() -> None:
    """Before tests are imported, in the process that runs them."""
    from hypothesis import settings

    settings.register_profile("patient", deadline=None)  # time says nothing on a busy machine
    settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On Windows, skip each test that needs what it lacks, and say what that is."""
    for item in items if WINDOWS else ():
        code = item.nodeid + inspect.getsource(item.function) if isinstance(item, pytest.Function) else ""
        lacking = [what for pattern, what in POSIX.items() if re.search(pattern, code)]
        if lacking:
            item.add_marker(pytest.mark.skip(reason=f"Windows lacks {' and '.join(lacking)}"))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """On Windows, skip the modules that import what Python has on POSIX alone."""
    report = yield
    missing = re.search(r"No module named '(fcntl|pwd|resource)'", str(report.longrepr))
    if WINDOWS and missing:
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: Windows lacks Python's module {missing[1]}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where Git is not installed, skip the tests that start it."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, FileNotFoundError) and error.filename == "git" and not shutil.which("git"):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, "Skipped: needs git")
    return report


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory for a stage that runs in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    for number, handler in before.items():  # a stage that ends ignores both, and so would its successors
        signal.signal(number, handler)


@pytest.fixture
def browser(tmp_path: Path) -> "Iterator[webdriver.Chrome]":
    """A browser that reaches no other machine, and logs what a page says and asks for."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    names = ("chromium", "chromium-browser", "google-chrome")
    binary, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1300,1300",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()
