"""Commands around the pipeline: ``python -m stages.tools.<command>`` from the root. No stage uses them."""
