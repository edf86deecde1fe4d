from .headlines import Headline, headlines, ratio
from .history import CURVES, History, is_statistics, load_history
from .opening import open_subject
from .report import Analysis, Settings, analyse, analyze
from .result_file import load_analysis, may_replace, save_analysis
from .subject import Network, Snapshot, Subject

__all__ = [
    "CURVES",
    "Analysis",
    "Headline",
    "History",
    "Network",
    "Settings",
    "Snapshot",
    "Subject",
    "analyse",
    "analyze",
    "headlines",
    "is_statistics",
    "load_analysis",
    "load_history",
    "may_replace",
    "open_subject",
    "ratio",
    "save_analysis",
]
