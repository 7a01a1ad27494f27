"""The stages of the pipeline, one script each: run them as ``python -m stages.<stage>`` from the root."""

import sys

from stages.common.errors import handle_uncaught

sys.excepthook = handle_uncaught
