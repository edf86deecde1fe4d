"""Gradient variance against the Hessian's diagonal, and spectra of the Hessians."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fishr.analysis.report import Analysis
from fishr.plots.style import color_of, legend, line_of, literal, marker_of, places_of, quiet, with_split

# More points only enlarge the file.
_POINTS = 4000
# Below this share of the largest value there is only rounding error, which would squeeze the rest.
_SMALLEST = 1e-9
_PANELS_A_ROW = 4


def scatter_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draw, for each domain, the gradient variance against the Hessian's diagonal, a point a head parameter."""
    rows = [
        (a, range(start, min(start + _PANELS_A_ROW, len(a.domains))))
        for a in analyses
        for start in range(0, len(a.domains), _PANELS_A_ROW)
    ]
    columns = max(len(indices) for _, indices in rows)
    figure = Figure(figsize=(2.9 * columns + 0.6, 2.9 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    places = _places(analyses)
    for row, (analysis, indices) in enumerate(rows):
        for column, axes in enumerate(grid[row]):
            if column >= len(indices):
                axes.set_visible(False)
                continue
            _scatter(axes, analysis, indices[column], color_of(places[analysis.domains[indices[column]]]))
            if column == 0:
                axes.set_ylabel(f"{literal(analysis.name)}\ngradient variance, (loss/parameter)²", fontsize=10)
            if row == len(rows) - 1:
                axes.set_xlabel("diagonal Hessian, loss/parameter²", fontsize=10)
    # The two are equal on the dashed line; the axes are shared.
    (left, right), (bottom, top) = grid[0, 0].get_xlim(), grid[0, 0].get_ylim()
    ends = max(left, bottom), min(right, top)
    for axes in grid.flat:
        axes.plot(ends, ends, color="gray", linewidth=0.9, linestyle="--", zorder=0, label="equal numbers")
    legend(figure)
    return figure


def _places(analyses: Sequence[Analysis]) -> dict[str, int]:
    return places_of(name for analysis in analyses for name in analysis.domains)


def _scatter(axes: Axes, analysis: Analysis, index: int, color: str) -> None:
    names = ("gradient_variance", "hessian_diagonal", "variance_hessian_cosine")
    variance, hessian, cosine = (analysis.quantities[name].value[index].double().numpy() for name in names)
    shown = np.flatnonzero((variance > _SMALLEST * variance.max()) & (hessian > _SMALLEST * hessian.max()))
    absent = len(variance) - len(shown)
    if len(shown) > _POINTS:
        shown = np.random.default_rng(0).choice(shown, _POINTS, replace=False)
    size = float(np.clip(3000 / len(variance), 7, 24))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.scatter(hessian[shown], variance[shown], s=size, alpha=0.5, linewidths=0, color=color, rasterized=True)
    quiet(axes, "", "", "")
    axes.set_title(with_split(analysis.domains[index], analysis.splits[index]), fontsize=10, loc="left")
    note = f"cos = {cosine:.3f}" + (f"\n{absent} of {len(variance)} near 0 or negative" if absent else "")
    axes.annotate(note, (0.04, 0.96), xycoords="axes fraction", va="top", fontsize=9)


def spectra_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draw the largest eigenvalues of each domain's Hessian by rank on one logarithmic axis; negative ones hollow."""
    figure, grid = _spectra_panels(analyses)
    places = _places(analyses)
    for axes, analysis in zip(grid, analyses, strict=True):
        values = analysis.quantities["top_eigenvalues"].value.double().numpy()
        ranks = np.arange(1, values.shape[1] + 1)
        for name, split, row in zip(analysis.domains, analysis.splits, values, strict=True):
            style: Any = {"color": color_of(places[name]), "marker": marker_of(places[name]), "markersize": 5}
            label = with_split(name, split)
            axes.plot(ranks, np.where(row < 0, np.nan, row), line_of(split), linewidth=0.8, label=label, **style)
            hollow: Any = style | {"markerfacecolor": "none", "linestyle": "none"}
            axes.plot(ranks[row < 0], -row[row < 0], **hollow)
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        quiet(axes, f"{literal(analysis.name)}: largest eigenvalues of the head's Hessians", "rank", "")
    grid[0].set_ylabel("eigenvalue, loss/parameter²")
    # Eigenvalues that are zero up to rounding are beneath the shared axis.
    low, high = grid[0].get_ylim()
    grid[0].set_ylim(max(low, _SMALLEST * high), high)
    negative = any(bool((analysis.quantities["top_eigenvalues"].value < 0).any()) for analysis in analyses)
    legend(figure, title="hollow: negative, drawn at its absolute value" if negative else "")
    return figure


def _spectra_panels(analyses: Sequence[Analysis]) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(5.5 * len(analyses) + 0.5, 4.3), layout="constrained")
    return figure, figure.subplots(1, len(analyses), squeeze=False, sharex=True, sharey=True)[0]


def density_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draw the spectral density of each domain's Hessian of the whole network, logarithmic."""
    figure, grid = _spectra_panels(analyses)
    places = _places(analyses)
    highest = max(float(analysis.network["spectral_density"].value[:, 1].max()) for analysis in analyses)
    for axes, analysis in zip(grid, analyses, strict=True):
        densities = analysis.network["spectral_density"].value.double().numpy()
        for name, split, (at, density) in zip(analysis.domains, analysis.splits, densities, strict=True):
            color, label = color_of(places[name]), with_split(name, split)
            axes.plot(at, density, line_of(split), color=color, label=label, linewidth=1.4)
        axes.set_yscale("log")
        title = f"{literal(analysis.name)}: spectrum of the whole network's Hessians"
        quiet(axes, title, "eigenvalue, loss/parameter²", "")
    grid[0].set_ylabel("density, parameter²/loss")
    # Between the peaks the density tends to zero, which has no place on a logarithmic axis.
    grid[0].set_ylim(_SMALLEST * highest, 3 * highest)
    legend(figure)
    return figure
