"""The figures of an analysis in one folder: from results, never from live models."""

import hashlib
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from attrs import asdict
from matplotlib.figure import Figure

from fishr.analysis.history import History
from fishr.analysis.report import Analysis
from fishr.errors import InputError, RunFailed
from fishr.files import write_atomically
from fishr.paths import check_writable
from fishr.plots.analysis_curvature import density_figure, scatter_figure, spectra_figure
from fishr.plots.analysis_history import history_figure
from fishr.plots.analysis_pairs import pairs_figure

FIGURES = ("pairs.png", "curvature.png", "spectra.png", "density.png", "history.png")


def save_analysis_figures(
    analyses: Sequence[Analysis], histories: Sequence[History], folder: Path, *, replace: bool = False
) -> list[Path]:
    """Draw heat maps over pairs, variance against Hessian, spectra and, where recorded, statistics over time.

    Figures of the same sources and settings give way to the new ones; others only with ``replace``.

    Args:
        analyses: one, or several to compare.
        histories: of the runs that recorded one.
        folder: of the PNGs; made if it is not there.
        replace: whether figures of another analysis give way as well.

    Returns:
        The paths.

    Raises:
        InputError: a figure of another analysis is there.
        RunFailed: one could not be written.
    """
    key = figures_key([(analysis.source, asdict(analysis.settings)) for analysis in analyses])
    check_figures(folder, key, replace=replace)
    figures = {
        "pairs.png": pairs_figure(analyses) if len(analyses[0].domains) > 1 else None,
        "curvature.png": scatter_figure(analyses),
        "spectra.png": spectra_figure(analyses),
        "density.png": density_figure(analyses) if all(analysis.network for analysis in analyses) else None,
        "history.png": history_figure(histories) if histories else None,
    }
    return [_save(figure, folder / name, key) for name, figure in figures.items() if figure is not None]


def figures_key(sources: Sequence[tuple[dict[str, str], dict[str, object]]]) -> str:
    """What figures say of where they come from, so that they are known again: a hash of sources and settings.

    Example:
        >>> figures_key([({"key": "a", "path": "run"}, {})]) == figures_key([({"key": "a", "path": "./run"}, {})])
        True
    """
    told = [(source["key"], settings) for source, settings in sources]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def check_figures(folder: Path, key: str, *, replace: bool = False) -> None:
    """Refuse a place for figures that is none, or that holds those of another analysis.

    Args:
        folder: of the PNGs.
        key: of these figures, by ``figures_key``.
        replace: whether others give way.

    Raises:
        InputError: the place is not a folder or may not be written, or a figure there is not of this key.

    Example:
        >>> check_figures(Path("no-such-folder"), "0123")
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file, expected a folder for figures; choose another place")
    check_writable(folder / FIGURES[0])
    for path in (folder / name for name in FIGURES):
        # A PNG keeps its texts as they are.
        if path.exists() and not replace and key.encode() not in path.read_bytes():
            raise InputError(
                f"{path}: is not of this analysis; choose another folder with --figures, or replace it with --replace"
            )


def _save(figure: Figure, path: Path, key: str) -> Path:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Source": f"fishr analysis {key}"})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailed(f"{path}: could not be written ({error.strerror}); nothing was left behind") from error
    write_atomically(path, buffer.getvalue())
    return path
