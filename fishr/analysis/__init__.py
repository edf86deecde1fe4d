"""Offline analysis: what is looked at, what was found, what a run recorded."""

from fishr.analysis.headlines import Headline, headlines, ratio
from fishr.analysis.history import CURVES, History, load_history
from fishr.analysis.opening import open_subject
from fishr.analysis.report import Analysis, Settings, analyse
from fishr.analysis.result_file import load_analysis, may_replace, save_analysis
from fishr.analysis.subject import Network, Snapshot, Subject

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
    "headlines",
    "load_analysis",
    "load_history",
    "may_replace",
    "open_subject",
    "ratio",
    "save_analysis",
]
