"""An accident at an exact place in a process of the study, whose code stays as it is.

With this folder in ``PYTHONPATH``, ``ACCIDENT="<what> <count> <pattern>"`` waits for the ``count``-th file
whose path ``pattern`` matches: ``half``, the process is killed when 100 bytes of it are written; ``kill`` and
``interrupt``, the process is killed, or Ctrl-C pressed, when it is written but not yet renamed to its path;
``run``, the shell command in ``ACCIDENT_COMMAND`` runs then, and the process goes on.
"""

import os
import re
import resource
import signal
import subprocess
import sys
from typing import Any

what, count, pattern = os.environ["ACCIDENT"].split(" ")
left = int(count)


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    global left
    if event != ("open" if what == "half" else "os.rename"):
        return
    if re.search(pattern, str(arguments[0 if what == "half" else 1])):
        left -= 1
        if left == 0:
            happen()


def happen() -> None:
    if what == "half":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    elif what == "run":
        subprocess.run(os.environ["ACCIDENT_COMMAND"], shell=True, check=True)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        os.killpg(os.getpgrp(), signal.SIGINT)  # as a terminal does


if any(word.startswith("stages.") for word in sys.orig_argv):  # not in DVC itself
    sys.addaudithook(watch)
