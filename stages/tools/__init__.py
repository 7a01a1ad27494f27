"""Commands beside the pipeline: run them as ``python -m stages.tools.<command>`` from the root."""
