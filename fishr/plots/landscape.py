"""The figures of a landscape, from its file: which there are, and the film over checkpoints."""

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from fishr.errors import InputError
from fishr.files import write_atomically
from fishr.landscape.surface import Frames, Surface
from fishr.landscape.surface_file import load_surface
from fishr.plots.landscape_level_sets import level_set_figure
from fishr.plots.landscape_lines import interpolation_figure, line_figure
from fishr.plots.landscape_planes import (
    add_bar,
    contour_figure,
    draw_contours,
    draw_star,
    levels_of,
    panels_of,
    surface_figure,
)
from fishr.plots.style import heading, literal, save

_NAMES = ("contours", "inconsistency", "surface", "")


def save_landscape_figures(path: Path, epsilon: float = 0.1) -> list[Path]:
    """Draw the figures of a surface file beside it, ``FILE-contours.png`` or ``FILE.png``; earlier ones are replaced.

    For a plane: contours of each domain on shared levels, the level sets R_e = R_e* ± ε of all domains, surfaces in
    three dimensions, and a GIF of the frames, if any. For lines: risks with bands, or with the barrier.

    Args:
        epsilon: ε of the level sets, loss.

    Raises:
        InputError: the file has no surface.
        RunFailed: a figure could not be written.
    """
    surface = load_surface(path)
    if surface.directions.kind == "interpolation":
        figures = {"": interpolation_figure(surface)}
    elif not surface.plane:
        figures = {"": line_figure(surface)}
    else:
        figures = {"contours": contour_figure(surface)}
        # A plane of one row or column has neither level sets nor a surface.
        if min(map(len, surface.axes)) > 1:
            figures |= {"inconsistency": level_set_figure(surface, epsilon), "surface": surface_figure(surface)}
    drawn = [save(figure, picture_of(path, name)) for name, figure in figures.items()]
    if surface.frames is not None:
        drawn.append(save_film(surface, surface.frames, path.with_suffix(".gif")))
    return drawn


def check_pictures(path: Path) -> None:
    """Raise InputError if a surface file is absent but one of its figures exists: that belongs to someone else."""
    if path.exists():
        return
    for picture in (*(picture_of(path, name) for name in _NAMES), path.with_suffix(".gif")):
        if picture.exists():
            raise InputError(f"{picture}: exists already, without {path.name}; choose another name, or remove it")


def picture_of(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}-{name}.png") if name else path.with_suffix(".png")


def save_film(surface: Surface, frames: Frames, path: Path) -> Path:
    """Write an animated GIF, whole or not at all: the same levels in each frame."""
    losses = frames.scores.losses.numpy()
    levels = levels_of(losses)
    figure, panels = panels_of(surface)
    figure.set_dpi(90)
    canvas = FigureCanvasAgg(figure)
    pictures = list[Image.Image]()
    for step, frame in zip(frames.steps, losses, strict=True):
        for axes, risks, name in zip(panels, frame, surface.domains, strict=True):
            axes.clear()
            filled = draw_contours(axes, surface, risks, levels, own_lines=False)
            axes.set_title(f"{literal(name)}: {risks[surface.center]:.3g}", fontsize=10, loc="left")
            draw_star(axes)
            if not pictures and axes is panels[-1]:
                add_bar(figure, panels, filled, levels)
        heading(figure, f"risk after {step} steps")
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    # The film pauses on its last frame.
    durations, film = [250] * (len(pictures) - 1) + [1500], BytesIO()
    pictures[0].save(film, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    write_atomically(path, film.getvalue())
    return path
