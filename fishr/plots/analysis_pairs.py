"""Heat maps over pairs of domains: distances of gradient variances and Hessians, cosines of Hessians and gradients."""

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

# Title, formula, quantity over pairs, and for a distance the quantity whose mean makes it scale-free.
_PANELS = (
    (
        "gradient variances",
        r"$\|v_A - v_B\|^2 \,/\, \|\bar{v}\|^2$",
        "variance_distances",
        "gradient_variance",
    ),
    (
        "diagonal Hessians",
        r"$\|h_A - h_B\|^2 \,/\, \|\bar{h}\|^2$",
        "hessian_diagonal_distances",
        "hessian_diagonal",
    ),
    ("Hessians", r"$\cos(H_A, H_B)$", "hessian_cosines", None),
    ("gradients", r"$\cos(g_A, g_B)$", "gradient_cosines", None),
)
# Numbers in more cells than this would not be legible.
_LEGIBLE = 8


def pairs_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draw a row of heat maps an analysis, with the same colors for a quantity in every row."""
    side = max(2.5, 0.55 * min(max(len(analysis.domains) for analysis in analyses), 12))
    figure = Figure(figsize=(side * len(_PANELS) + 2.2, side * len(analyses) + 2.2), layout="constrained")
    grid = figure.subplots(len(analyses), len(_PANELS), squeeze=False)
    for column, (title, formula, name, scale) in enumerate(_PANELS):
        matrices = [_matrix(analysis, name, scale) for analysis in analyses]
        norm = _distance_norm(matrices) if scale else Normalize(-1, 1)
        image = ScalarMappable(norm, "cividis_r" if scale else "RdBu")
        bar = figure.colorbar(image, ax=list(grid[:, column]), location="bottom", shrink=0.9, aspect=25)
        bar.set_label("0: the two match" if scale else "1: one direction, −1: opposite", fontsize=9)
        if isinstance(norm, LogNorm):
            # Less than a decade has no power of ten to label: the ends and the middle always have numbers.
            ends = [float(end) for end in np.geomspace(*image.get_clim(), 3)]
            bar.set_ticks(ends, labels=[_short(end) for end in ends])
            bar.ax.minorticks_off()
        for row, (analysis, matrix) in enumerate(zip(analyses, matrices, strict=True)):
            axes = grid[row, column]
            shown = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix) if scale else matrix
            axes.imshow(shown, cmap=image.cmap, norm=norm, aspect="auto")
            _annotate(axes, matrix, image, scale is not None)
            _label(axes, analysis, first=column == 0, last=row == len(analyses) - 1)
            if row == 0:
                axes.set_title(f"{'distance' if scale else 'cosine'} of {title}\n{formula}", fontsize=10)
    return figure


def _matrix(analysis: Analysis, name: str, scale: str | None) -> Matrix:
    matrix = analysis.quantities[name].value.double().numpy()
    if scale is None:
        return matrix
    training = analysis.quantities[scale].value.double()[: len(analysis.training)]
    return matrix / max(float(training.mean(0).square().sum()), np.finfo(float).tiny)


def _distance_norm(matrices: list[Matrix]) -> Normalize:
    values = np.concatenate([matrix[~np.eye(len(matrix), dtype=bool)] for matrix in matrices])
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return Normalize(0, 1)
    low, high = positive.min(), positive.max()
    # A single number has no range; a factor of two on either side puts it in the middle.
    return LogNorm(low, high) if high > low * 1.01 else LogNorm(low / 2, high * 2)


def _annotate(axes: Axes, matrix: Matrix, image: ScalarMappable, distance: bool) -> None:
    if len(matrix) > _LEGIBLE:
        return
    size = 9 if len(matrix) <= 4 else 7
    for (row, column), value in np.ndenumerate(matrix):
        own = distance and row == column
        text = "–" if own or not np.isfinite(value) else _short(value) if distance else f"{value:.2f}".replace("-", "−")
        red, green, blue, _ = image.to_rgba(np.asarray(value))
        dark = not own and 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        axes.annotate(text, (column, row), ha="center", va="center", fontsize=size, color="white" if dark else "black")


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= value < 9.95e3:
        return f"{float(f'{value:.2g}'):g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return rf"${mantissa}{{\cdot}}10^{{{int(exponent)}}}$"


def _label(axes: Axes, analysis: Analysis, first: bool, last: bool) -> None:
    names, trained = [literal(name) for name in analysis.domains], len(analysis.training)
    at = range(len(names))
    axes.set_xticks(at, names if last else [], rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(at, names if first else [], fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if 0 < trained < len(names):
        # The line separates training domains from evaluation domains.
        for line in (axes.axhline, axes.axvline):
            line(trained - 0.5, color="white", linewidth=3)
            line(trained - 0.5, color="black", linewidth=0.8)
    if first:
        axes.set_ylabel(literal(analysis.name), fontsize=11, fontweight="bold")
