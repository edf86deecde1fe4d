"""Landscapes over a plane: filled contours of each domain on shared levels, and where the domains' level sets lie."""

import json
from math import ceil
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from fishr.diagnostics.inconsistency import connected_region, inconsistency
from fishr.landscape import Surface
from fishr.plots.landscape_levels import COLORMAP, Array, Levels, shared_levels
from fishr.plots.style import COLORS, literal

_MOST_COLUMNS = 4
# From this share of the colours on, lines are black.
_BRIGHT = 0.65
_OUTLINE = [withStroke(linewidth=2.2, foreground="white")]


def contour_figure(surface: Surface) -> Figure:
    """Filled contours of each domain's risk on shared levels, with one colour bar.

    Args:
        surface: over a plane.

    Returns:
        A panel a domain; the star is θ*, dots are known weights.
    """
    levels = shared_levels(surface.scores.losses.numpy())
    figure, panels = panels_of(surface)
    drawn = [
        draw_contours(axes, surface, risks.numpy(), levels)
        for axes, risks in zip(panels, surface.scores.losses, strict=True)
    ]
    for axes, risks, name, split in zip(panels, surface.scores.losses, surface.domains, surface.splits, strict=True):
        axes.set_title(
            f"{literal(name)} ({split})\nrisk at ★ {float(risks[surface.centre]):.3g}", fontsize=10, loc="left"
        )
        draw_points(axes, surface)
    add_bar(figure, panels, drawn[0], levels)
    return figure


def panels_of(surface: Surface, heading: str = "") -> tuple[Figure, list[Axes]]:
    """A figure with an empty panel for each domain, their axes shared and named once."""
    count = len(surface.domains)
    # Four panels are two rows of two: wider than that, none of them can be read.
    columns = 2 if count == 4 else min(count, _MOST_COLUMNS - 1)
    rows = ceil(count / columns)
    figure = Figure(figsize=(3.3 * columns + 1.3, 3.2 * rows + 0.9), layout="constrained")
    grid = cast(Any, figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False))
    every: list[Axes] = list(grid.flat)
    for axes in every[count:]:
        axes.set_visible(False)
    for index, axes in enumerate(every[:count]):
        # The panel above a gap is the lowest of its column.
        axes.tick_params(labelbottom=index + columns >= count, labelleft=index % columns == 0)
    figure.supxlabel(literal(surface.directions.names[0]), fontsize=10)
    figure.supylabel(literal(surface.directions.names[1]), fontsize=10)
    figure.suptitle(heading or title_of(surface), fontsize=12, fontweight="bold", x=0.01, ha="left")
    return figure, every[:count]


def title_of(surface: Surface) -> str:
    """What is shown, and of which run."""
    name = Path(surface.source.get("path", "")).resolve().name if "path" in surface.source else "the weights"
    moved = json.loads(surface.settings).get("parameters", "")
    return f"risk around {literal(name)}" + (f" ({moved} parameters)" if moved else "")


def draw_contours(axes: Axes, surface: Surface, risks: Array, levels: Levels, own_lines: bool = True) -> Any:
    """Fill one panel; a grid of a single row or column is shown as cells, since it has no contours.

    Args:
        axes: the panel.
        surface: for the coordinates.
        risks: [nx, ny].
        levels: of the colours.
        own_lines: whether lines are drawn at labelled risks of the panel's own, instead of where the colours change.

    Returns:
        What a colour bar is made of.
    """
    xs, ys = (axis.numpy() for axis in surface.axes)
    shown = levels.shown(risks).T
    if min(len(xs), len(ys)) < 2:
        return axes.pcolormesh(_edges(xs), _edges(ys), shown, cmap=COLORMAP, norm=levels.norm)
    filled = axes.contourf(
        xs, ys, shown, levels.edges, cmap=COLORMAP, norm=levels.norm, extend="max" if levels.above else "neither"
    )
    # The shared colours compare domains; lines of the panel's own show the shape of what differs little.
    finite = np.ma.compressed(shown)
    if finite.size and finite.max() > finite.min():
        color = "black" if levels.norm(float(np.median(finite))) > _BRIGHT else "white"
        lines = axes.contour(xs, ys, shown, 6 if own_lines else levels.edges, colors=color, linewidths=0.7, alpha=0.8)
        if own_lines:
            axes.clabel(lines, fontsize=7, fmt="%g")
    return filled


def add_bar(figure: Figure, panels: list[Axes], filled: Any, levels: Levels) -> None:
    """The one colour bar of all panels."""
    bar = figure.colorbar(filled, ax=panels, shrink=0.9, pad=0.02, ticks=levels.ticks, format=levels.format)
    bar.ax.yaxis.set_minor_locator(levels.minor)
    bar.set_label("risk" + (" (logarithmic)" if levels.logarithmic else ""))


def draw_points(axes: Axes, surface: Surface, star: bool = True) -> None:
    """θ* as a star; known weights as dots, joined where they are one run's."""
    points, labels = surface.directions.points.numpy(), surface.directions.labels
    kind = surface.directions.kind
    if kind == "gradients":
        for (x, y), label in zip(points, labels, strict=True):
            axes.annotate(
                "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 1.4}, zorder=4
            )
            _name(axes, x, y, label)
    elif len(points):
        joined = "-" if kind == "pca" else ""
        axes.plot(*points.T, f"o{joined}", color="black", markersize=3.5, linewidth=1.1, path_effects=_OUTLINE)
        # All names of a long trajectory would cover it.
        for index in range(len(points)) if kind == "checkpoints" else (0,):
            _name(axes, points[index, 0], points[index, 1], labels[index])
    if star:
        axes.plot(0, 0, "*", color="white", markeredgecolor="black", markersize=13, zorder=5)


def _name(axes: Axes, x: float, y: float, label: str) -> None:
    low, high = axes.get_xlim()
    right = x > (low + high) / 2
    axes.annotate(
        literal(label),
        (x, y),
        xytext=(-7 if right else 7, 6 if y >= 0 else -12),
        textcoords="offset points",
        fontsize=8,
        ha="right" if right else "left",
        path_effects=_OUTLINE,
        zorder=6,
    )


def level_set_figure(surface: Surface, epsilon: float) -> Figure:
    """The picture of inconsistency: where each domain's risk is at par with that at θ*, |R_e − R_e*| ≤ ε.

    Where one domain's region reaches far beyond another's, one domain's risk can change without the other noticing.

    Args:
        surface: over a plane of at least two points a side.
        epsilon: ε, loss.

    Returns:
        One panel with the connected region and the level sets of every domain.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    xs, ys = (axis.numpy() for axis in surface.axes)
    handles, reached = list[Any](), list[tuple[float, float]]()
    for index, (name, split, risks) in enumerate(
        zip(surface.domains, surface.splits, surface.scores.losses, strict=True)
    ):
        color = COLORS[index % len(COLORS)]
        start = risks[surface.centre]
        at_par = (risks - start).abs() <= epsilon
        region = connected_region(at_par, surface.centre) if at_par[surface.centre] else at_par
        reached += [(float(xs[i]), float(ys[j])) for i, j in region.nonzero().tolist()]
        excess = np.ma.masked_invalid((risks - start).numpy()).T
        if epsilon > 0:
            axes.contourf(xs, ys, excess, [-epsilon, epsilon], colors=[color], alpha=0.16)
        dashed = split == "training"
        axes.contour(xs, ys, excess, [epsilon], colors=[color], linewidths=1.8, linestyles="--" if dashed else "-")
        axes.contour(xs, ys, excess, [-epsilon], colors=[color], linewidths=1.0, linestyles=":")
        share = float(region.double().mean())
        handles.append(Line2D([], [], color=color, linestyle="--" if dashed else "-", linewidth=1.8))
        handles[-1].set_label(f"{literal(name)} ({split})\nR* = {float(start):.3g}; {share:.0%} of the plane")
    handles.append(Patch(facecolor="grey", alpha=0.3, label="|R − R*| ≤ ε\nline: R* + ε, dotted: R* − ε"))
    _zoom(axes, surface, reached)
    draw_points(axes, surface)
    axes.set_xlabel(literal(surface.directions.names[0]))
    axes.set_ylabel(literal(surface.directions.names[1]))
    figure.legend(handles=handles, frameon=False, fontsize=9, loc="outside right upper", labelspacing=1.0)
    figure.suptitle(_inconsistency_title(surface, epsilon), fontsize=12, fontweight="bold", x=0.01, ha="left")
    return figure


def _inconsistency_title(surface: Surface, epsilon: float) -> str:
    training = [index for index, split in enumerate(surface.splits) if split == "training"]
    losses = surface.scores.losses[training]
    title = f"level sets R = R* ± ε, ε = {epsilon:g}"
    if len(training) < 2 or not torch.isfinite(losses[(slice(None), *surface.centre)]).all():
        return title
    value = float(inconsistency(losses, surface.centre, epsilon).value)
    return f"{title}; training domains' inconsistency {value:.3g}"


def _zoom(axes: Axes, surface: Surface, reached: list[tuple[float, float]]) -> None:
    """Show what the regions reach, and a margin: small ones would be a dot on the whole plane."""
    for axis, seen, limit in zip(
        surface.axes, zip(*(reached or [(0.0, 0.0)]), strict=True), (axes.set_xlim, axes.set_ylim), strict=True
    ):
        low, high = float(axis[0]), float(axis[-1])
        step = (high - low) / max(1, len(axis) - 1)
        margin = 0.35 * (max(seen) - min(seen)) + 2 * step
        if high > low:
            limit(max(low, min(seen) - margin), min(high, max(seen) + margin))


def _edges(values: Array) -> Array:
    """Borders of cells around coordinates; of a single one, half a unit to each side."""
    if len(values) < 2:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    step = (values[1] - values[0]) / 2
    return np.append(values - step, values[-1] + step)
