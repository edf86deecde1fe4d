"""A reproduced table as bars beside the published numbers, and a strip of the colored images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fishr.data.digits import ColoredDigits
from fishr.data.domains import Domain, Domains
from fishr.data.mnist import ColoredMNIST
from fishr.plots.style import quiet, save
from fishr.protocols.invariance import METHODS
from fishr.reproductions import COLUMNS, Row

# Two colors that color-blind people tell apart and that add up to white, so that an image in both is gray.
_CHANNELS = np.array([(0.0, 0.4, 1.0), (1.0, 0.6, 0.0)])
_EACH, _GAP, _HEADING = 5, 0.4, 0.7
_TITLES = {"train": "training domains", "reversed": "colors reversed", "gray": "no colors"}
_COLORS = {"train": "#BDBDBD", "reversed": "#009E73", "gray": "#6B6B6B"}
_INK = {"train": "black", "reversed": "white", "gray": "white"}


def save_reproduction_figure(
    rows: Sequence[Row], data: ColoredDigits | ColoredMNIST, domains: Domains, path: Path
) -> Path:
    """Draw images of each domain, and accuracies by method: bars are measured, diamonds are published.

    Args:
        domains: of ``data``, with two evaluation domains, "reversed" and "gray".

    Raises:
        RunFailed: the figure could not be written.
    """
    figure = Figure(figsize=(10, 3.8))
    figure.set_layout_engine("constrained", wspace=0.04)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    reversed_, gray = domains.evaluation
    agreement = " and ".join(_percent(1 - flip) for flip in data.flips)
    groups = (
        (f"training domains: {agreement} % in that color", _COLORS["train"], domains.training),
        (f"colors reversed: {_percent(1 - data.test_flip)} % in that color", _COLORS["reversed"], (reversed_,)),
        ("no colors", _COLORS["gray"], (gray,)),
    )
    noise, best = _percent(data.label_noise), _percent(1 - data.label_noise)
    note = f"{noise} % of the labels are wrong, in every domain,\nso without color {best} % is the best possible."
    _images(left, groups, note)
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


def _images(axes: Axes, groups: tuple[tuple[str, str, tuple[Domain, ...]], ...], note: str) -> None:
    """Draw the first images of each domain in a row; a group is a heading, its color among the bars, and domains."""
    right = _EACH + _GAP
    for left, label in ((0, "label 0 to 4: orange"), (right, "label 5 to 9: blue")):
        axes.text(left + _EACH / 2, 0, label, ha="center", va="bottom", fontsize=10)
    top = 0.0
    for title, color, domains in groups:
        axes.text(0, top + 0.55, "■", color=color, fontsize=11)
        axes.text(0.5, top + 0.55, title, fontsize=10)
        top += _HEADING
        for domain in domains:
            assert isinstance(domain.inputs, Tensor)
            for left, label in ((0, 1), (right, 0)):
                for place, image in enumerate(domain.inputs[domain.labels == label][:_EACH]):
                    x, painted = left + place, np.einsum("chw,cr->hwr", image.double().numpy(), _CHANNELS).clip(0, 1)
                    axes.imshow(painted, extent=(x + 0.03, x + 0.97, top + 0.97, top + 0.03))
            top += 1
    axes.text(0, top + 0.2, note, va="top", fontsize=10)
    axes.set_xlim(0, right + _EACH)
    axes.set_ylim(top + 1.2, -0.5)
    axes.set_aspect("equal")
    axes.set_axis_off()
