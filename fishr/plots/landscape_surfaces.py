"""Landscapes as surfaces in three dimensions."""

from math import ceil
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fishr.landscape import Surface
from fishr.plots.landscape_levels import COLORMAP, shared_levels
from fishr.plots.landscape_planes import title_of
from fishr.plots.style import literal


def surface_figure(surface: Surface) -> Figure:
    """Each domain's risk as a surface, on one scale; logarithmic where the contours are.

    Args:
        surface: over a plane of at least two points a side.

    Returns:
        A panel a domain.
    """
    levels = shared_levels(surface.scores.losses.numpy())
    count = len(surface.domains)
    columns = 2 if count == 4 else min(count, 3)
    rows = ceil(count / columns)
    figure = Figure(figsize=(4.2 * columns, 3.7 * rows + 0.6), layout="constrained")
    xs, ys = np.meshgrid(*(axis.numpy() for axis in surface.axes), indexing="ij")
    low, high = levels.edges[0], levels.edges[-1]
    for index, (name, split, risks) in enumerate(
        zip(surface.domains, surface.splits, surface.scores.losses.numpy(), strict=True)
    ):
        axes = cast(Any, figure.add_subplot(rows, columns, index + 1, projection="3d"))
        # matplotlib's third axis has no logarithmic scale of its own.
        clipped = np.clip(risks, low, high)
        height = np.log10(clipped) if levels.logarithmic else clipped
        colors = figure_colors(levels.norm(clipped))
        axes.plot_surface(
            xs,
            ys,
            height,
            facecolors=colors,
            rcount=len(xs),
            ccount=len(ys),
            linewidth=0,
            antialiased=False,
            shade=False,
        )
        axes.set_zlim(*(np.log10([low, high]) if levels.logarithmic else (low, high)))
        if levels.logarithmic:
            axes.zaxis.set_major_formatter(lambda value, _: f"{10**value:.2g}")
        axes.zaxis.set_major_locator(MaxNLocator(4))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4))
        axes.tick_params(labelsize=7, pad=0)
        axes.set_title(f"{literal(name)} ({split})", fontsize=10, loc="left")
        axes.set_xlabel("α", labelpad=-2)
        axes.set_ylabel("β", labelpad=-2)
        axes.set_zlabel("risk", labelpad=1)
        axes.view_init(elev=32, azim=-58)
        axes.set_box_aspect(None, zoom=0.95)
    first, second = map(literal, surface.directions.names)
    scale = ", logarithmic height" if levels.logarithmic else ""
    figure.suptitle(f"{title_of(surface)}{scale}", fontsize=12, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(f"α: {first}\nβ: {second}", fontsize=9, x=0.01, ha="left")
    return figure


def figure_colors(shares: Any) -> Any:
    """[..., 4] colours of numbers from 0 to 1."""
    from matplotlib import colormaps

    return colormaps[COLORMAP](np.ma.filled(np.ma.masked_invalid(shares), 0.0))
