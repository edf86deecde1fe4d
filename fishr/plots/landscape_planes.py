"""Landscapes over a plane: filled contours of each domain on shared levels, and all level sets in one panel."""

import json
from math import ceil
from pathlib import Path
from typing import Any, cast

import numpy as np
from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from fishr.analysis.landscape_evaluation import training_inconsistency
from fishr.diagnostics.quantities.risk_grids import connected_region
from fishr.landscape.surface import Surface
from fishr.plots.style import color_of, heading, line_of, literal, places_of, with_split

Array = NDArray[np.float64]

COLORMAP = "viridis"
_COUNT = 31
# Beyond this ratio of the highest to the lowest risk, even steps would give the valley a single color.
_LOGARITHMIC = 8.0
# A random direction may lead to huge risks; those beyond this quantile of the grid share the top color.
_QUANTILE = 0.97
_SMALLEST = 1e-4
# From this share of the colors on, lines are black.
_BRIGHT = 0.65
_OUTLINE = [withStroke(linewidth=2.2, foreground="white")]


@frozen(eq=False)
class Levels:
    """Risks at which the color changes: ascending edges, spaced evenly or by ratio; ``above``: a risk exceeds them."""

    edges: Array
    logarithmic: bool
    above: bool

    @property
    def norm(self) -> Normalize:
        return (LogNorm if self.logarithmic else Normalize)(self.edges[0], self.edges[-1], clip=True)

    @property
    def lines(self) -> Array:
        """Return a few round risks between the edges: over more than two decades powers of ten only."""
        low, high = self.edges[0], self.edges[-1]
        subs = (1, 2, 5) if high < 100 * low else (1,)
        found = (LogLocator(subs=subs) if self.logarithmic else MaxNLocator(8)).tick_values(low, high)
        return np.array([value for value in found if low < value < high])


def levels_of(risks: Array) -> Levels:
    """Return levels from the lowest to about the highest risk, spaced by ratio if the risks span nearly a decade."""
    finite = risks[np.isfinite(risks)]
    if not finite.size:
        return Levels(np.linspace(0, 1, _COUNT), logarithmic=False, above=False)
    highest = float(np.quantile(finite, _QUANTILE))
    # The cap is for outliers: a plain bowl is shown to its rim.
    highest = float(finite.max()) if finite.max() < 3 * highest else highest
    lowest = float(finite.min())
    logarithmic = lowest >= 0 and highest > _LOGARITHMIC * lowest and highest > _SMALLEST
    if logarithmic:
        # Zero has no place on a logarithmic scale; it takes the lowest color.
        edges = np.geomspace(max(lowest, _SMALLEST * highest), highest, _COUNT)
    else:
        highest = highest if highest > lowest else lowest + 1e-6 + 1e-3 * abs(lowest)
        edges = np.linspace(lowest, highest, _COUNT)
    return Levels(edges, logarithmic, above=bool(finite.max() > highest))


def contour_figure(surface: Surface) -> Figure:
    """Draw filled contours of each domain's risk; the star is θ*, dots are known weights."""
    losses = surface.scores.losses.numpy()
    levels = levels_of(losses)
    figure, panels = panels_of(surface)
    filled = [draw_contours(axes, surface, risks, levels) for axes, risks in zip(panels, losses, strict=True)]
    for axes, risks, name, split in zip(panels, losses, surface.titles, surface.splits, strict=True):
        title = f"{with_split(name, split)}\nrisk at ★ {risks[surface.center]:.3g}"
        axes.set_title(title, fontsize=10, loc="left")
        draw_points(axes, surface)
    add_bar(figure, panels, filled[0], levels)
    return figure


def level_set_figure(surface: Surface, epsilon: float) -> Figure:
    """Draw where each domain's risk is close to that at θ*, |R_e − R_e*| ≤ ε, over at least two points a side."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    xs, ys = (axis.numpy() for axis in surface.axes)
    handles, reached, places = list[Any](), list[tuple[float, float]](), places_of((*surface.every, *surface.titles))
    for name, split, risks in zip(surface.titles, surface.splits, surface.scores.losses, strict=True):
        color, line, start = color_of(places[name]), line_of(split), risks[surface.center]
        close = (risks - start).abs() <= epsilon
        region = connected_region(close, surface.center) if close[surface.center] else close
        reached += [(float(xs[i]), float(ys[j])) for i, j in region.nonzero().tolist()]
        excess = np.ma.masked_invalid((risks - start).numpy()).T
        if epsilon > 0:
            axes.contourf(xs, ys, excess, [-epsilon, epsilon], colors=[color], alpha=0.16)
        axes.contour(xs, ys, excess, [epsilon], colors=[color], linewidths=1.8, linestyles=line)
        axes.contour(xs, ys, excess, [-epsilon], colors=[color], linewidths=1.0, linestyles=":")
        share = float(region.double().mean())
        label = f"{with_split(name, split)}\nR* = {float(start):.3g}; {share:.0%} of the plane"
        handles.append(Line2D([], [], color=color, linestyle=line, linewidth=1.8, label=label))
    handles.append(Patch(facecolor="gray", alpha=0.3, label="|R − R*| ≤ ε\nline: R* + ε, dotted: R* − ε"))
    _zoom(axes, surface, reached)
    draw_points(axes, surface)
    axes.set_xlabel(literal(surface.directions.names[0]))
    axes.set_ylabel(literal(surface.directions.names[1]))
    figure.legend(handles=handles, frameon=False, fontsize=9, loc="outside right upper", labelspacing=1.0)
    found = training_inconsistency(surface, epsilon)
    shown = "" if found is None else f"; training domains' inconsistency {found:.3g}"
    heading(figure, f"level sets R = R* ± ε, ε = {epsilon:g}{shown}")
    return figure


def _zoom(axes: Axes, surface: Surface, reached: list[tuple[float, float]]) -> None:
    """Show the regions and a margin: small ones would be a dot on the whole plane."""
    seen = zip(*(reached or [(0.0, 0.0)]), strict=True)
    for axis, values, limit in zip(surface.axes, seen, (axes.set_xlim, axes.set_ylim), strict=True):
        low, high = float(axis[0]), float(axis[-1])
        step = (high - low) / max(1, len(axis) - 1)
        margin = 0.35 * (max(values) - min(values)) + 2 * step
        if high > low:
            limit(max(low, min(values) - margin), min(high, max(values) + margin))


def panels_of(surface: Surface) -> tuple[Figure, list[Axes]]:
    """Return a figure with an empty panel for each domain; their axes are shared and named once."""
    count = len(surface.domains)
    # Four panels in a row would be too small to read.
    columns = 2 if count == 4 else min(count, 3)
    rows = ceil(count / columns)
    figure = Figure(figsize=(3.3 * columns + 1.3, 3.2 * rows + 0.9), layout="constrained")
    every: list[Axes] = list(cast(Any, figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)).flat)
    for index, axes in enumerate(every):
        axes.set_visible(index < count)
        # The panel above a gap is the lowest of its column.
        axes.tick_params(labelbottom=index + columns >= count, labelleft=index % columns == 0)
    figure.supxlabel(literal(surface.directions.names[0]), fontsize=10)
    figure.supylabel(literal(surface.directions.names[1]), fontsize=10)
    heading(figure, title_of(surface))
    return figure, every[:count]


def title_of(surface: Surface) -> str:
    name = Path(surface.source["path"]).resolve().name if "path" in surface.source else "the weights"
    moved = json.loads(surface.settings).get("parameters", "")
    return f"risk around {literal(name)}" + (f" ({moved} parameters)" if moved else "")


def draw_contours(axes: Axes, surface: Surface, risks: Array, levels: Levels) -> Any:
    """Fill one panel, with labelled lines at the same risks in every panel; return it for the bar."""
    xs, ys = (axis.numpy() for axis in surface.axes)
    shown = np.ma.masked_invalid(np.maximum(risks, levels.edges[0])).T
    if min(len(xs), len(ys)) < 2:
        # A single row or column has no contours.
        return axes.pcolormesh(_edges(xs), _edges(ys), shown, cmap=COLORMAP, norm=levels.norm)
    extend = "max" if levels.above else "neither"
    filled = axes.contourf(xs, ys, shown, levels.edges, cmap=COLORMAP, norm=levels.norm, extend=extend)
    finite = np.ma.compressed(shown)
    crossed = [line for line in levels.lines if finite.size and finite.min() < line < finite.max()]
    if crossed:
        colors = ["black" if levels.norm(line) > _BRIGHT else "white" for line in crossed]
        lines = axes.contour(xs, ys, shown, crossed, colors=colors, linewidths=0.8)
        axes.clabel(lines, fontsize=8, fmt="%g")
    return filled


def _edges(values: Array) -> Array:
    """Return the borders of cells around coordinates; around a single one, half a unit to each side."""
    if len(values) < 2:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    step = (values[1] - values[0]) / 2
    return np.append(values - step, values[-1] + step)


def add_bar(figure: Figure, panels: list[Axes], filled: Any, levels: Levels) -> None:
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    bar = figure.colorbar(filled, ax=panels, shrink=0.9, pad=0.02, ticks=levels.lines, format=plain)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_label("risk, loss" + (" (logarithmic)" if levels.logarithmic else ""))


def draw_points(axes: Axes, surface: Surface) -> None:
    """Draw θ* as a star, and known weights as dots, joined if they are one run's."""
    points, labels, kind = surface.directions.points.numpy(), surface.directions.labels, surface.directions.kind
    if kind == "gradients":
        arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.4}
        for (x, y), label in zip(points, labels, strict=True):
            axes.annotate("", (x, y), (0, 0), arrowprops=arrow, zorder=4)
            _name(axes, x, y, label)
    elif len(points):
        joined = "-" if kind == "pca" else ""
        axes.plot(*points.T, f"o{joined}", color="black", markersize=3.5, linewidth=1.1, path_effects=_OUTLINE)
        # All names of a long trajectory would cover it.
        for index in range(len(points)) if kind == "checkpoints" else (0,):
            _name(axes, points[index, 0], points[index, 1], labels[index])
    draw_star(axes)


def draw_star(axes: Axes) -> None:
    axes.plot(0, 0, "*", color="white", markeredgecolor="black", markersize=13, zorder=5)


def _name(axes: Axes, x: float, y: float, label: str) -> None:
    low, high = axes.get_xlim()
    side, offset = ("right", -7) if x > (low + high) / 2 else ("left", 7)
    place: Any = {"xytext": (offset, 6 if y >= 0 else -12), "textcoords": "offset points", "ha": side}
    axes.annotate(literal(label), (x, y), **place, fontsize=8, path_effects=_OUTLINE, zorder=6)
