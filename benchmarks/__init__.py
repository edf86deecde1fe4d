"""Measured ratios against the alternatives: ``python -m benchmarks``."""
