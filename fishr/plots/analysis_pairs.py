"""Heat maps over pairs of domains: how far apart their gradient variances and Hessians are, whose gradients agree."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fishr.analysis.report import Analysis
from fishr.plots.style import literal

Matrix = NDArray[np.float64]

_DISTANCES = (
    ("gradient variances", r"$\|v_A - v_B\|^2 \,/\, \|\bar{v}\|^2$", "variance_distances", "gradient_variance"),
    ("diagonal Hessians", r"$\|h_A - h_B\|^2 \,/\, \|\bar{h}\|^2$", "hessian_diagonal_distances", "hessian_diagonal"),
)
_COSINES = (
    ("Hessians", r"$\cos(H_A, H_B)$", "hessian_cosines"),
    ("gradients", r"$\cos(g_A, g_B)$", "gradient_cosines"),
)
# Numbers in more cells than this would not be legible.
_LEGIBLE = 8


def pairs_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draw a row of heat maps a subject, the same quantity on the same colours in every row.

    Distances are divided by the squared norm of the training domains' mean, so that subjects can be compared.

    Args:
        analyses: one, or several to compare.

    Returns:
        The figure.
    """
    columns = [
        (title, formula, [_distances(a, pairs, each) for a in analyses]) for title, formula, pairs, each in _DISTANCES
    ]
    cosines = [(title, formula, [_matrix(a, name) for a in analyses]) for title, formula, name in _COSINES]
    domains = max(len(analysis.domains) for analysis in analyses)
    side = max(2.5, 0.55 * min(domains, 12))
    width = len(_DISTANCES) + len(_COSINES)
    figure = Figure(figsize=(side * width + 2.2, side * len(analyses) + 2.2), layout="constrained")
    grid = figure.subplots(len(analyses), width, squeeze=False)
    for column, (title, formula, matrices) in enumerate([*columns, *cosines]):
        distance = column < len(columns)
        norm = _distance_norm(matrices) if distance else Normalize(-1, 1)
        image = ScalarMappable(norm, "cividis_r" if distance else "RdBu")
        bar = figure.colorbar(image, ax=list(grid[:, column]), location="bottom", shrink=0.9, aspect=25)
        if isinstance(norm, LogNorm):
            # Less than a decade has no power of ten to label: the ends and the middle always have numbers.
            ends = [float(end) for end in np.geomspace(*image.get_clim(), 3)]
            bar.set_ticks(ends, labels=[_short(end) for end in ends])
            bar.ax.minorticks_off()
        for row, (analysis, matrix) in enumerate(zip(analyses, matrices, strict=True)):
            axes = grid[row, column]
            shown = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix) if distance else matrix
            axes.imshow(shown, cmap=image.cmap, norm=norm, aspect="auto")
            _annotate(axes, matrix, image, distance)
            _label(axes, analysis, first=column == 0, last=row == len(analyses) - 1)
            if row == 0:
                axes.set_title(f"{title}\n{formula}", fontsize=10)
    return figure


def _matrix(analysis: Analysis, name: str) -> Matrix:
    return analysis.quantities[name].value.double().numpy()


def _distances(analysis: Analysis, pairs: str, each: str) -> Matrix:
    training = analysis.quantities[each].value.double()[: len(analysis.training)]
    return _matrix(analysis, pairs) / max(float(training.mean(0).square().sum()), np.finfo(float).tiny)


def _distance_norm(matrices: list[Matrix]) -> Normalize:
    values = np.concatenate([matrix[~np.eye(len(matrix), dtype=bool)] for matrix in matrices])
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return Normalize(0, 1)
    low, high = positive.min(), positive.max()
    # One number has no range; a factor of two on either side puts it in the middle.
    return LogNorm(low, high) if high > low * 1.01 else LogNorm(low / 2, high * 2)


def _annotate(axes: Axes, matrix: Matrix, image: ScalarMappable, distance: bool) -> None:
    if len(matrix) > _LEGIBLE:
        return
    size = 9 if len(matrix) <= 4 else 7
    for (row, column), value in np.ndenumerate(matrix):
        nothing = (distance and row == column) or not np.isfinite(value)
        text = "–" if nothing else _short(value) if distance else f"{value:.2f}"
        red, green, blue, _ = image.to_rgba(np.asarray(value))
        dark = not (distance and row == column) and 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        axes.annotate(text, (column, row), ha="center", va="center", fontsize=size, color="white" if dark else "black")


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= value < 9.95e3:
        return f"{float(f'{value:.2g}'):g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return rf"${mantissa}{{\cdot}}10^{{{int(exponent)}}}$"


def _label(axes: Axes, analysis: Analysis, first: bool, last: bool) -> None:
    names, trained = [literal(name) for name in analysis.domains], len(analysis.training)
    axes.set_xticks(
        range(len(names)), names if last else [], rotation=40, ha="right", rotation_mode="anchor", fontsize=9
    )
    axes.set_yticks(range(len(names)), names if first else [], fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if 0 < trained < len(names):
        # Training domains stand before the line, evaluation domains behind it.
        for line in (axes.axhline, axes.axvline):
            line(trained - 0.5, color="white", linewidth=3)
            line(trained - 0.5, color="black", linewidth=0.8)
    if first:
        axes.set_ylabel(literal(analysis.name), fontsize=11, fontweight="bold")
