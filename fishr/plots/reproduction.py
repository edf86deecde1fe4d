"""A reproduced table as bars beside what was published, and the images it is about."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fishr.data.digits import ColoredDigits
from fishr.data.domains import Domains
from fishr.data.mnist import ColoredMNIST
from fishr.plots.samples import Group, draw_samples
from fishr.plots.style import quiet, save
from fishr.protocols.invariance import METHODS
from fishr.reproductions import COLUMNS, Row

_TITLES = {"train": "training domains", "reversed": "colors reversed", "gray": "no colors"}
_COLORS = {"train": "#BDBDBD", "reversed": "#009E73", "gray": "#6B6B6B"}
_INK = {"train": "black", "reversed": "white", "gray": "white"}


def save_reproduction_figure(
    rows: Sequence[Row], data: ColoredDigits | ColoredMNIST, domains: Domains, path: Path
) -> Path:
    """Draw images of each domain, and accuracies by method: bars are measured, diamonds published.

    Args:
        rows: of ``fishr.reproductions.table``.
        data: shares of wrong colors and labels.
        domains: what ``data`` makes: two evaluation domains, "reversed" and "gray".
        path: of the PNG.

    Returns:
        The path.

    Raises:
        RunFailed: it could not be written.
    """
    figure = Figure(figsize=(10, 3.8))
    figure.set_layout_engine("constrained", wspace=0.04)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    reversed_, gray = domains.evaluation
    agreement = " and ".join(_percent(1 - flip) for flip in data.flips)
    groups = (
        Group(f"training domains: {agreement} % in that color", _COLORS["train"], domains.training),
        Group(f"colors reversed: {_percent(1 - data.test_flip)} % in that color", _COLORS["reversed"], (reversed_,)),
        Group("no colors", _COLORS["gray"], (gray,)),
    )
    noise, best = _percent(data.label_noise), _percent(1 - data.label_noise)
    note = f"{noise} % of the labels are wrong, in every domain,\nso without color {best} % is the best possible."
    draw_samples(left, groups, note)
    _bars(right, rows, 1 - data.label_noise)
    return save(figure, path)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}"


def _bars(axes: Axes, rows: Sequence[Row], best: float) -> None:
    width = 0.8 / len(COLUMNS)
    for index, column in enumerate(COLUMNS):
        at = [x + (index - 1) * width for x in range(len(rows))]
        measured = [row.measured[column] for row in rows]
        means, deviations = [m.mean for m in measured], [m.deviation for m in measured]
        axes.bar(at, means, width * 0.92, yerr=deviations, capsize=2, color=_COLORS[column], label=_TITLES[column])
        for x, mean in zip(at, means, strict=True):
            # In the bar's foot, where nothing else is drawn, or above a bar too low for that.
            y, color = (1.5, _INK[column]) if mean > 6 else (mean + 1.5, "black")
            axes.annotate(f"{mean:.0f}", (x, y), ha="center", fontsize=9, color=color)
        published = [(x, row.published[column].mean) for x, row in zip(at, rows, strict=True) if row.published]
        if published:
            label = "published" if column == COLUMNS[-1] else None
            axes.plot(*zip(*published, strict=True), "D", color="white", mec="black", ms=5, zorder=3, label=label)
    for level, text in ((50, "chance"), (100 * best, "best\nwithout\ncolor")):
        axes.axhline(level, color="black", linewidth=0.9, linestyle=":")
        axes.annotate(text, (1.01, level), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set_xticks(range(len(rows)), [METHODS[row.method].title for row in rows])
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylim(0, 100)
    quiet(axes, "", "", "accuracy, %")
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower left", bbox_to_anchor=(-0.01, 0.99))
