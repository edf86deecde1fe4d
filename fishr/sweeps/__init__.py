"""Sweeps: a plan, its jobs in local processes or on a cluster, and what is known of them from their folder."""
