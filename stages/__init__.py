"""The stages of the pipeline, one script each: run them as ``python -m stages.<stage>`` from the root."""

import sys

from stages.common.errors import handle_uncaught, refuse_old_python

sys.excepthook = handle_uncaught
refuse_old_python()

from stages.common import environment, parent, snapshot  # noqa: E402, F401  # early: how this process began
