"""The stages of the pipeline, one script each: run them as ``python -m stages.<stage>`` from the root."""

import sys

from stages.common.errors import end_on_sigterm, handle_uncaught, refuse_old_python

sys.excepthook = handle_uncaught
refuse_old_python()
if any(word.startswith("stages.") for word in sys.orig_argv):
    end_on_sigterm()  # also while torch is imported

from stages.common import environment, parent, snapshot  # noqa: E402, F401  # early: how this process began
