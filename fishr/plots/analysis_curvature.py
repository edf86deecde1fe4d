"""Gradient variance against the Hessian's diagonal, and spectra of the Hessians."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fishr.analysis.report import Analysis
from fishr.plots.style import color_of, legend, literal, quiet, with_split

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
    for row, (analysis, indices) in enumerate(rows):
        for column, axes in enumerate(grid[row]):
            if column >= len(indices):
                axes.set_visible(False)
                continue
            _scatter(axes, analysis, indices[column])
            if column == 0:
                axes.set_ylabel(f"{literal(analysis.name)}\ngradient variance v", fontsize=10)
            if row == len(rows) - 1:
                axes.set_xlabel("diagonal Hessian h", fontsize=10)
    # The two are equal on the dashed line; the axes are shared.
    (left, right), (bottom, top) = grid[0, 0].get_xlim(), grid[0, 0].get_ylim()
    ends = max(left, bottom), min(right, top)
    for axes in grid.flat:
        axes.plot(ends, ends, color="gray", linewidth=0.9, linestyle="--", zorder=0)
    return figure


def _scatter(axes: Axes, analysis: Analysis, index: int) -> None:
    names = ("gradient_variance", "hessian_diagonal", "variance_hessian_cosine")
    variance, hessian, cosine = (analysis.quantities[name].value[index].double().numpy() for name in names)
    shown = np.flatnonzero((variance > _SMALLEST * variance.max()) & (hessian > _SMALLEST * hessian.max()))
    absent = len(variance) - len(shown)
    if len(shown) > _POINTS:
        shown = np.random.default_rng(0).choice(shown, _POINTS, replace=False)
    size, color = float(np.clip(3000 / len(variance), 7, 24)), color_of(index)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.scatter(hessian[shown], variance[shown], s=size, alpha=0.5, linewidths=0, color=color, rasterized=True)
    quiet(axes, "", "", "")
    axes.set_title(with_split(analysis.domains[index], analysis.splits[index]), fontsize=10, loc="left")
    note = f"cos = {cosine:.3f}" + (f"\n{absent} of {len(variance)} not shown" if absent else "")
    axes.annotate(note, (0.04, 0.96), xycoords="axes fraction", va="top", fontsize=9)


def spectra_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draw the largest eigenvalues of each domain's Hessian by rank, logarithmic; negative ones are hollow."""
    most = max(analysis.quantities["top_eigenvalues"].value.shape[-1] for analysis in analyses)
    domains = max(len(analysis.domains) for analysis in analyses)
    width = min(max(4.5, 0.09 * most * (domains + 1) + 1.5), 12 / len(analyses))
    figure = Figure(figsize=(width * len(analyses), 4), layout="constrained")
    grid = figure.subplots(1, len(analyses), squeeze=False, sharey=True)[0]
    for axes, analysis in zip(grid, analyses, strict=True):
        values = analysis.quantities["top_eigenvalues"].value.double().numpy()
        ranks, width = np.arange(1, values.shape[1] + 1), 0.8 / len(values)
        for index, (name, row) in enumerate(zip(analysis.domains, values, strict=True)):
            color, negative = color_of(index), row < 0
            at = ranks + (index - (len(values) - 1) / 2) * width
            axes.bar(at[~negative], row[~negative], width * 0.95, color=color, label=literal(name))
            axes.bar(at[negative], -row[negative], width * 0.95, facecolor="none", edgecolor=color, linewidth=0.8)
        axes.set_yscale("log")
        axes.set_xlim(0.3, len(ranks) + 0.7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        quiet(axes, f"{literal(analysis.name)}: largest eigenvalues of the head's Hessians", "rank", "")
        legend(axes)
    grid[0].set_ylabel("eigenvalue, loss/parameter²")
    # Eigenvalues that are zero up to rounding are beneath the shared axis.
    low, high = grid[0].get_ylim()
    grid[0].set_ylim(max(low, _SMALLEST * high), high)
    return figure


def density_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draw the spectral density of each domain's Hessian of the whole network, logarithmic."""
    figure = Figure(figsize=(6 * len(analyses), 4), layout="constrained")
    grid = figure.subplots(1, len(analyses), squeeze=False, sharex=True, sharey=True)[0]
    highest = max(float(analysis.network["spectral_density"].value[:, 1].max()) for analysis in analyses)
    for axes, analysis in zip(grid, analyses, strict=True):
        densities = analysis.network["spectral_density"].value.double().numpy()
        for index, (name, (at, density)) in enumerate(zip(analysis.domains, densities, strict=True)):
            axes.plot(at, density, color=color_of(index), label=literal(name), linewidth=1.4)
        axes.set_yscale("log")
        title = f"{literal(analysis.name)}: spectrum of the whole network's Hessians"
        quiet(axes, title, "eigenvalue, loss/parameter²", "")
        legend(axes)
    grid[0].set_ylabel("density, parameter²/loss")
    # Between the peaks the density tends to zero, which has no place on a logarithmic axis.
    grid[0].set_ylim(_SMALLEST * highest, 3 * highest)
    return figure
