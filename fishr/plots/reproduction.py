"""A reproduced table as bars beside what was published."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fishr.plots.style import COLORS, literal, quiet, save
from fishr.protocols.invariance import METHODS
from fishr.reproductions import COLUMNS, Row

_TITLES = {"train": "training domains", "reversed": "colours reversed", "gray": "no colours"}


def save_reproduction_figure(rows: Sequence[Row], title: str, path: Path) -> Path:
    """Draw accuracies by method: bars are measured (± standard deviation), diamonds published.

    Args:
        rows: of ``fishr.reproductions.table``.
        title: above the figure.
        path: of the PNG.

    Returns:
        The path.

    Raises:
        RunFailed: it could not be written.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(COLUMNS)
    for index, column in enumerate(COLUMNS):
        at = [x + (index - 1) * width for x in range(len(rows))]
        measured = [row.measured[column] for row in rows]
        means, deviations = [m.mean for m in measured], [m.deviation for m in measured]
        axes.bar(at, means, width * 0.92, yerr=deviations, capsize=2, color=COLORS[index], label=_TITLES[column])
        for x, mean in zip(at, means, strict=True):
            # In the bar's foot, where nothing else is drawn, or above a bar too low for that.
            y, color = (1.5, "white") if mean > 6 else (mean + 1.5, "black")
            axes.annotate(f"{mean:.0f}", (x, y), ha="center", fontsize=8, color=color)
        published = [(x, row.published[column].mean) for x, row in zip(at, rows, strict=True) if row.published]
        if published:
            label = "published" if column == COLUMNS[-1] else None
            axes.plot(*zip(*published, strict=True), "D", color="white", mec="black", ms=5, zorder=3, label=label)
    axes.axhline(50, color="gray", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(rows)), [METHODS[row.method].title for row in rows])
    axes.set_xlim(-0.7, len(rows) - 0.3)
    axes.set_ylim(0, 100)
    quiet(axes, literal(title), "", "accuracy, %")
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower right", bbox_to_anchor=(1, 0.99))
    return save(figure, path)
