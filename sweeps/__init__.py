"""Searches, ablations and seeds: python -m sweeps run <search file>."""

import stages  # noqa: F401  # first: it holds what the user's shell exports
