"""Landscapes along lines: risks over random directions with a band, and between two runs with the barrier."""

from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fishr.diagnostics.quantities.risk_grids import barrier
from fishr.landscape.surface import Surface
from fishr.plots.landscape_planes import Array, title_of
from fishr.plots.style import color_of, heading, line_of, literal, quiet, with_split

# Beyond this ratio a linear axis flattens the valley.
_LOGARITHMIC = 20.0


def line_figure(surface: Surface) -> Figure:
    """Draw risk and accuracy of each domain along random directions: the mean, and a band from lowest to highest."""
    count = len(surface.directions.vectors)
    figure, left, right = _panels(f"{title_of(surface)}, along {count} random direction{'s' if count > 1 else ''}")
    xs, losses = surface.axes[0].numpy(), surface.scores.losses.numpy()
    for axes, values in ((left, losses), (right, 100 * surface.scores.accuracies.numpy())):
        for index, (name, split, lines) in enumerate(zip(surface.domains, surface.splits, values, strict=True)):
            color, label = color_of(index), with_split(name, split)
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
    each = zip(surface.domains, surface.splits, losses.numpy(), barrier(losses).value.tolist(), strict=True)
    for index, (name, split, risks, height) in enumerate(each):
        color, label = color_of(index), f"{with_split(name, split)}: barrier {height:.3g}"
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
    handles, labels = left.get_legend_handles_labels()
    # Outside: curves may be anywhere.
    cast(Any, left.figure).legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=2)


def _style(split: str, xs: Array) -> str:
    return line_of(split) if len(xs) > 1 else "o"
