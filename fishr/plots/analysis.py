"""The figures of an analysis in one folder, and the statistics over training time."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from attrs import asdict
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fishr.analysis.history import History
from fishr.analysis.report import Analysis, Settings
from fishr.errors import InputError, RunFailed, reason
from fishr.paths import check_writable
from fishr.plots.analysis_curvature import density_figure, scatter_figure, spectra_figure
from fishr.plots.analysis_pairs import pairs_figure
from fishr.plots.style import color_of, legend, literal, logarithmic, quiet, save

FIGURES = ("pairs.png", "curvature.png", "spectra.png", "density.png", "history.png")


def save_analysis_figures(
    analyses: Sequence[Analysis], histories: Sequence[History], folder: Path, *, replace: bool = False
) -> list[Path]:
    """Draw heat maps over pairs, variance against Hessian, spectra and, if recorded, statistics over time.

    Earlier figures of the same sources and settings are replaced; others only with ``replace``.

    Raises:
        InputError: the folder has a figure of another analysis.
        RunFailed: a figure could not be written.
    """
    key = check_figures(folder, [(analysis.source, analysis.settings) for analysis in analyses], replace=replace)
    _make(folder)
    figures = {
        "pairs.png": pairs_figure(analyses) if len(analyses[0].domains) > 1 else None,
        "curvature.png": scatter_figure(analyses),
        "spectra.png": spectra_figure(analyses),
        "density.png": density_figure(analyses) if all(analysis.network for analysis in analyses) else None,
        "history.png": history_figure(histories) if histories else None,
    }
    return [save(figure, folder / name, Source=f"fishr analysis {key}") for name, figure in figures.items() if figure]


def save_history_figure(
    histories: Sequence[History],
    sources: Iterable[tuple[dict[str, str], Settings]],
    folder: Path,
    *,
    replace: bool = False,
) -> Path:
    """Draw statistics over time alone; else as ``save_analysis_figures``."""
    key = check_figures(folder, sources, replace=replace)
    _make(folder)
    return save(history_figure(histories), folder / "history.png", Source=f"fishr analysis {key}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailed(f"{folder}: could not be made ({reason(error)}); nothing was left behind") from error


def check_figures(folder: Path, analyses: Iterable[tuple[dict[str, str], Settings]], *, replace: bool = False) -> str:
    """Return the key that figures of these sources and settings carry; refuse a folder with figures of another."""
    keys = [(source["key"], asdict(settings)) for source, settings in analyses]
    key = hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file, expected a folder for figures; choose another place")
    check_writable(folder / FIGURES[0])
    for path in (folder / name for name in FIGURES):
        # A PNG stores its texts uncompressed.
        if path.exists() and not replace and key.encode() not in path.read_bytes():
            raise InputError(
                f"{path}: is not of this analysis; choose another folder with --figures, or replace it with --replace"
            )
    return key


def history_figure(histories: Sequence[History]) -> Figure:
    """Draw the recorded statistics of runs, a color a run; of the cosine, the domains' mean and range."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    (variance, hessian), (inconsistency, cosine) = figure.subplots(2, 2, sharex=True)

    def plot(axes: Axes, history: History, curve: Tensor, color: str, width: float | None = None) -> None:
        marker, label = "-" if len(history.steps) > 1 else "o", literal(history.name)
        axes.plot(history.steps.numpy(), curve.numpy(), marker, color=color, label=label, linewidth=width)

    for index, history in enumerate(histories):
        color = color_of(index)
        curves = (history.variance_distance, history.hessian_distance, history.inconsistency)
        for axes, curve in zip((variance, hessian, inconsistency), curves, strict=True):
            # A logarithmic axis has no place for zero, the distance of domains that agree exactly.
            plot(axes, history, curve.double().where(curve > 0, torch.nan), color, 1.6)
            logarithmic(axes)
        low, high = torch.aminmax(history.cosine, dim=1)
        cosine.fill_between(history.steps.numpy(), low.numpy(), high.numpy(), color=color, alpha=0.18, linewidth=0)
        plot(cosine, history, history.cosine.mean(1), color)
    distance = r"mean $\|{0}_e - \bar{{{0}}}\|^2 \,/\, \|\bar{{{0}}}\|^2$"
    quiet(variance, "distance of gradient variances (0: the domains match)", "", distance.format("v"))
    quiet(hessian, "distance of diagonal Hessians (0: the domains match)", "", distance.format("h"))
    quiet(inconsistency, "inconsistency of the domains' landscapes", "step", "loss")
    title = "variance as a stand-in for the Hessian (band: all domains)"
    quiet(cosine, title, "step", r"$\cos(v_e, \mathrm{diag}\, H_e)$")
    for axes in (inconsistency, cosine):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    cosine.set_ylim(min(0.0, *(1.05 * float(history.cosine.min()) for history in histories)), 1.05)
    legend(figure)
    return figure
