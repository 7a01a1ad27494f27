"""Searches, ablations and seeds: python -m sweeps run <search file>."""
