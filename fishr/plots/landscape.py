"""The figures of a landscape, from its file: those of a plane, of lines, and the film over checkpoints."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fishr.diagnostics.quantities.risk_grids import barrier
from fishr.errors import InputError
from fishr.files import write_atomically
from fishr.landscape.surface import Frames, Surface
from fishr.landscape.surface_file import load_surface
from fishr.plots.fonts import add_fonts
from fishr.plots.landscape_planes import (
    Array,
    add_bar,
    contour_figure,
    draw_contours,
    draw_star,
    level_set_figure,
    levels_of,
    panels_of,
    title_of,
)
from fishr.plots.style import color_of, heading, legend, line_of, literal, places_of, quiet, save, with_split

_NAMES = ("contours", "inconsistency", "")
# Beyond this ratio a linear axis flattens the valley.
_LOGARITHMIC = 20.0


def save_landscape_figures(
    path: Path, epsilon: float = 0.1, progress: Callable[[int, int], object] = lambda done, total: None
) -> list[Path]:
    """Draw the figures of a surface file beside it, ``FILE-contours.png`` or ``FILE.png``; earlier ones are replaced.

    For a plane: contours of each domain on shared levels, the level sets R_e = R_e* ± ε of all domains, and a GIF of
    the frames, if any. For lines: risks with bands, or with the barrier.

    Args:
        epsilon: ε of the level sets, loss.
        progress: Called with the number of pictures of the film that are drawn, and of all.

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
        # A plane of one row or column has no level sets.
        if min(map(len, surface.axes)) > 1:
            figures["inconsistency"] = level_set_figure(surface, epsilon)
    drawn = [save(figure, picture_of(path, name)) for name, figure in figures.items()]
    if surface.frames is not None:
        drawn.append(save_film(surface, surface.frames, path.with_suffix(".gif"), progress))
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


def save_film(
    surface: Surface, frames: Frames, path: Path, progress: Callable[[int, int], object] = lambda done, total: None
) -> Path:
    """Write an animated GIF, whole or not at all: the same levels in each frame."""
    losses = frames.scores.losses.numpy()
    levels = levels_of(losses)
    figure, panels = panels_of(surface)
    figure.set_dpi(90)
    canvas = FigureCanvasAgg(figure)
    pictures = list[Image.Image]()
    for done, (step, frame) in enumerate(zip(frames.steps, losses, strict=True), 1):
        for axes, risks, name in zip(panels, frame, surface.titles, strict=True):
            axes.clear()
            filled = draw_contours(axes, surface, risks, levels)
            axes.set_title(f"{literal(name)}: {risks[surface.center]:.3g}", fontsize=10, loc="left")
            draw_star(axes)
            if not pictures and axes is panels[-1]:
                add_bar(figure, panels, filled, levels)
        heading(figure, f"risk after {step} steps")
        add_fonts(figure)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
        progress(done, len(losses))
    # The film pauses on its last frame.
    durations, film = [250] * (len(pictures) - 1) + [1500], BytesIO()
    pictures[0].save(film, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    write_atomically(path, film.getvalue())
    return path


def line_figure(surface: Surface) -> Figure:
    """Draw risk and accuracy of each domain along random directions: the mean, and a band from lowest to highest."""
    count = len(surface.directions.vectors)
    figure, left, right = _panels(f"{title_of(surface)}, along {count} random direction{'s' if count > 1 else ''}")
    xs, losses = surface.axes[0].numpy(), surface.scores.losses.numpy()
    places = places_of((*surface.every, *surface.titles))
    for axes, values in ((left, losses), (right, 100 * surface.scores.accuracies.numpy())):
        for name, split, lines in zip(surface.titles, surface.splits, values, strict=True):
            color, label = color_of(places[name]), with_split(name, split)
            axes.fill_between(xs, lines.min(1), lines.max(1), color=color, alpha=0.13, linewidth=0)
            axes.plot(xs, lines.mean(1), _style(split, xs), label=label, color=color, linewidth=1.6)
        axes.axvline(0, color="gray", linewidth=0.8, linestyle=":")
    _finish(left, right, "α", losses)
    band = "line: mean, band: lowest to highest" if count > 1 else "one direction"
    right.set_title(f"accuracy ({band})", fontsize=11, loc="left")
    return figure


def interpolation_figure(surface: Surface) -> Figure:
    """Draw risk and accuracy of each domain between two runs, with the chord and the barrier above it."""
    start, end = map(literal, surface.directions.labels)
    figure, left, right = _panels(f"risk between {start} (0) and {end} (1)")
    xs, losses = surface.axes[0].numpy(), surface.scores.losses[..., 0]
    places = places_of((*surface.every, *surface.titles))
    each = zip(surface.titles, surface.splits, losses.numpy(), barrier(losses).value.tolist(), strict=True)
    for index, (name, split, risks, height) in enumerate(each):
        color, label = color_of(places[name]), f"{with_split(name, split)}: barrier {height:.3g}"
        left.plot(xs, risks, _style(split, xs), label=label, color=color, linewidth=1.6)
        chord = risks[0] + xs * (risks[-1] - risks[0])
        left.plot(xs, chord, ":", color=color, linewidth=1.0)
        at = int(np.nanargmax(risks - chord))
        if height > 0:
            left.plot([xs[at]] * 2, [chord[at], risks[at]], color=color, linewidth=3, solid_capstyle="butt")
        share = 100 * surface.scores.accuracies[index, :, 0].numpy()
        right.plot(xs, share, _style(split, xs), color=color, linewidth=1.6)
    _finish(left, right, f"share of {end} in the weights", losses.numpy())
    left.set_title("risk (dotted: the chord; bar: the barrier)", fontsize=11, loc="left")
    return figure


def _panels(title: str) -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    heading(figure, title)
    return figure, left, right


def _finish(left: Axes, right: Axes, x: str, risks: Array) -> None:
    finite = risks[np.isfinite(risks)]
    if finite.size and finite.min() > 0 and finite.max() > _LOGARITHMIC * finite.min():
        left.set_yscale("log")
    quiet(left, "risk", x, "loss")
    quiet(right, "accuracy", x, "%")
    right.set_ylim(0, 100)
    # Outside: curves may be anywhere.
    legend(cast(Figure, left.figure))


def _style(split: str, xs: Array) -> str:
    return line_of(split) if len(xs) > 1 else "o"
