"""Shared parts of all figures: colors for color-blind readers, quiet axes, names as they are written, saving."""

from collections.abc import Iterable
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from fishr.files import write_atomically
from fishr.plots.fonts import add_fonts, drawable

# Okabe and Ito's palette.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Of another count than the colors, so that domains of one color differ in their markers.
_MARKERS = ("o", "s", "^", "D", "v", "P")


def color_of(index: int) -> str:
    return COLORS[index % len(COLORS)]


def marker_of(index: int) -> str:
    return _MARKERS[index % len(_MARKERS)]


def places_of(names: Iterable[str]) -> dict[str, int]:
    """Return the index of the color of each name, the same wherever the name comes again."""
    return {name: index for index, name in enumerate(dict.fromkeys(names))}


def line_of(split: str) -> Literal["-", "--"]:
    return "--" if split == "training" else "-"


def literal(name: str) -> str:
    r"""Return a text that matplotlib shows as the name is written; all texts with a user's names pass through here."""
    # Else a pair of dollar signs is typeset as a formula, and the legend leaves out a label that begins with "_".
    escaped = drawable(name).replace("$", r"\$")
    return f"\u200a{escaped}" if escaped.startswith("_") else escaped


def with_split(name: str, split: str) -> str:
    return f"{literal(name)} ({split})"


def quiet(axes: Axes, title: str, x: str, y: str) -> None:
    """Set title and labels, a light grid, and no box."""
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def logarithmic(axes: Axes) -> None:
    """Set a logarithmic axis with plain numbers, also between the powers of ten where few of these are shown."""

    def between(value: float, _: int) -> str:
        low, high = axes.get_ylim()
        labelled = "23456789" if high < 3 * low else "235" if high < 20 * low else ""
        return f"{value:g}" if f"{value:e}"[0] in labelled else ""

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(between))


def heading(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=12, fontweight="bold", x=0.01, ha="left")


def legend(figure: Figure, title: str = "", *, fitted: bool = True) -> int:
    """Explain all panels below them, each label once, in as many columns as there is room for; return the rows."""
    found = dict[str, Any]()
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= zip(labels, handles, strict=True)
    room = int(figure.get_figwidth() / (0.075 * max(map(len, found), default=1) + 0.6))
    columns = max(1, min(room, len(found)))
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside lower center" if fitted else "lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        title=title,
        title_fontsize=9,
    )
    return ceil(len(found) / columns)


def save(figure: Figure, path: Path, **metadata: str) -> Path:
    """Write a figure as PNG, whole or not at all."""
    add_fonts(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata=metadata)
    write_atomically(path, buffer.getvalue())
    return path
