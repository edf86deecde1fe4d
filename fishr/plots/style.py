"""What all figures share: colours that colour-blind people tell apart, quiet axes, atomic saving."""

from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fishr.files import write_atomically

# Okabe and Ito's palette.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def literal(name: str) -> str:
    r"""Return the text that matplotlib shows as a name is written.

    Without it, a pair of dollar signs would be typeset as a formula, and a label that begins with "_" would be missing
    from the legend. Every text that contains a name of the user's passes through here.

    Args:
        name: of a domain, run, method or file, or a text with such names in it and no formula.

    Returns:
        The name with escaped dollar signs, after a hair space if it begins with "_".

    Example:
        >>> literal("$x$"), literal("_a") == "\u200a_a", literal("photo")
        ('\\$x\\$', True, 'photo')
    """
    escaped = name.replace("$", r"\$")
    return f"\u200a{escaped}" if escaped.startswith("_") else escaped


def quiet(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, labels, light grid, no box."""
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all.

    Raises:
        RunFailed: it could not be written.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_atomically(path, buffer.getvalue())
    return path
