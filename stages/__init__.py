"""The stages of the pipeline, one script each: run them as ``python -m stages.<stage>`` from the root."""
