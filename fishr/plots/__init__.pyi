from .analysis import save_analysis_figures
from .benchmark import save_benchmark_figure
from .landscape import save_landscape_figures
from .reproduction import save_reproduction_figure
from .run import save_run_figure

__all__ = [
    "save_analysis_figures",
    "save_benchmark_figure",
    "save_landscape_figures",
    "save_reproduction_figure",
    "save_run_figure",
]
