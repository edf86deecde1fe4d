"""Level sets of all domains in one picture, which shows their inconsistency."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fishr.diagnostics.quantities.risk_grids import connected_region, inconsistency
from fishr.landscape.surface import Surface
from fishr.plots.landscape_planes import draw_points
from fishr.plots.style import color_of, heading, line_of, literal, with_split


def level_set_figure(surface: Surface, epsilon: float) -> Figure:
    """Draw where each domain's risk is close to that at θ*, |R_e − R_e*| ≤ ε, over at least two points a side."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    xs, ys = (axis.numpy() for axis in surface.axes)
    handles, reached = list[Any](), list[tuple[float, float]]()
    each = zip(surface.domains, surface.splits, surface.scores.losses, strict=True)
    for index, (name, split, risks) in enumerate(each):
        color, line, start = color_of(index), line_of(split), risks[surface.center]
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
    heading(figure, _title(surface, epsilon))
    return figure


def _title(surface: Surface, epsilon: float) -> str:
    losses = surface.scores.losses[surface.training]
    title = f"level sets R = R* ± ε, ε = {epsilon:g}"
    if len(losses) < 2 or not torch.isfinite(losses[(slice(None), *surface.center)]).all():
        return title
    value = float(inconsistency(losses, surface.center, epsilon).value)
    return f"{title}; training domains' inconsistency {value:.3g}"


def _zoom(axes: Axes, surface: Surface, reached: list[tuple[float, float]]) -> None:
    """Show the regions and a margin: small ones would be a dot on the whole plane."""
    seen = zip(*(reached or [(0.0, 0.0)]), strict=True)
    for axis, values, limit in zip(surface.axes, seen, (axes.set_xlim, axes.set_ylim), strict=True):
        low, high = float(axis[0]), float(axis[-1])
        step = (high - low) / max(1, len(axis) - 1)
        margin = 0.35 * (max(values) - min(values)) + 2 * step
        if high > low:
            limit(max(low, min(values) - margin), min(high, max(values) + margin))
