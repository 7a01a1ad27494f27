"""The stages of the pipeline, one script each: run them as ``python -m stages.<stage>`` from the root."""

import sys

from stages.study.errors import told_in_words

sys.excepthook = told_in_words
