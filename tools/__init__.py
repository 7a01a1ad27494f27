"""Commands around the pipeline: python -m tools.<command>."""

import stages  # noqa: F401  # first: it holds what the user's shell exports
