"""Sweeps: a plan, its jobs in local processes or on a cluster, and their progress, read from files."""
