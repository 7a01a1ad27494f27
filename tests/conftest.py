import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

MOST_WORKERS = 8  # the longest test bounds the time, and each has torch in memory

# What is computed here is too small to share. Set before torch is imported, and inherited by the
# processes that tests start. Torch and hypothesis are not imported here: the process that hands out
# the tests to the workers would wait for them.
os.environ["OMP_NUM_THREADS"] = "1"
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


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory for a stage that runs in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    for number, handler in before.items():  # a stage that ends ignores both, and so would its successors
        signal.signal(number, handler)
