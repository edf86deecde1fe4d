"""Shared parts of all figures: colors for color-blind readers, quiet axes, names as they are written, saving."""

from io import BytesIO
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fishr.files import write_atomically

# Okabe and Ito's palette.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def color_of(index: int) -> str:
    return COLORS[index % len(COLORS)]


def line_of(split: str) -> Literal["-", "--"]:
    return "--" if split == "training" else "-"


def literal(name: str) -> str:
    r"""Return a text that matplotlib shows as the name is written; all texts with a user's names pass through here."""
    # Else a pair of dollar signs is typeset as a formula, and the legend leaves out a label that begins with "_".
    escaped = name.replace("$", r"\$")
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


def heading(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=12, fontweight="bold", x=0.01, ha="left")


def legend(axes: Axes, size: int = 9) -> None:
    axes.legend(frameon=False, fontsize=size)


def save(figure: Figure, path: Path, **metadata: str) -> Path:
    """Write a figure as PNG, whole or not at all."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata=metadata)
    write_atomically(path, buffer.getvalue())
    return path
