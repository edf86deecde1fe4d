"""A landscape over training time: the same plane around each kept checkpoint, the same levels in each frame."""

import tempfile
from pathlib import Path
from typing import Any

from matplotlib.animation import PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fishr.files import write_atomically
from fishr.landscape import Surface
from fishr.plots.landscape_levels import shared_levels
from fishr.plots.landscape_planes import add_bar, draw_contours, panels_of
from fishr.plots.style import literal

_PER_SECOND = 4
# The last frame stays for so many, so that one sees where it ended.
_HELD = 6


def save_film(surface: Surface, path: Path) -> Path:
    """Write an animated GIF, whole or not at all.

    Args:
        surface: over a plane, with frames.
        path: of the GIF.

    Returns:
        The path.

    Raises:
        RunFailed: it could not be written.
    """
    frames: Any = surface.frames
    losses = frames.scores.losses.numpy()
    levels = shared_levels(losses)
    figure, panels = panels_of(surface)
    FigureCanvasAgg(figure)
    writer = PillowWriter(fps=_PER_SECOND)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder, "film.gif")
        with writer.saving(figure, str(film), dpi=90):
            for index, (step, sheet) in enumerate(zip(frames.steps, losses, strict=True)):
                for axes, risks, name in zip(panels, sheet, surface.domains, strict=True):
                    axes.clear()
                    filled = draw_contours(axes, surface, risks, levels, own_lines=False)
                    axes.set_title(f"{literal(name)}: {risks[surface.centre]:.3g}", fontsize=10, loc="left")
                    axes.plot(0, 0, "*", color="white", markeredgecolor="black", markersize=13, zorder=5)
                    if index == 0 and axes is panels[-1]:
                        add_bar(figure, panels, filled, levels)
                figure.suptitle(f"risk after {step} steps", fontsize=12, fontweight="bold", x=0.01, ha="left")
                for _ in range(_HELD if step == frames.steps[-1] else 1):
                    writer.grab_frame()
        content = film.read_bytes()
    write_atomically(path, content)
    return path
