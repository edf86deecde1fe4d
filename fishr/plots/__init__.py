"""Figures from results on disk, never from live models."""

from fishr.plots.reproduction import save_reproduction_figure
from fishr.plots.run import save_run_figure

__all__ = ["save_reproduction_figure", "save_run_figure"]
