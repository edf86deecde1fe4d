"""The page of an analysis, and its sections: headlines, pairs of domains, curvature, statistics over training time."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fishr.analysis import CURVES, Analysis, History, headlines, load_analysis, load_history
from fishr.analysis.result_file import KIND as ANALYSIS
from fishr.data.caches.hdf5 import read_header
from fishr.diagnostics import Quantity, diagnostics
from fishr.errors import InputError
from fishr.landscape.surface_file import KIND as SURFACE
from fishr.landscape.surface_file import load_surface
from fishr.reports.charts import Curve, aligned, curve_chart, point_chart
from fishr.reports.landscape_section import landscape_section
from fishr.reports.matrix_chart import Kind, matrix_chart
from fishr.reports.page import Block, Chart, Page, Section, Table, Text
from fishr.training.evaluation import percentage

# Title, quantity over pairs, and for a distance the quantity whose mean makes it scale-free.
_PAIRS: tuple[tuple[str, str, str | None], ...] = (
    ("Distances of gradient variances, scale-free", "variance_distances", "gradient_variance"),
    ("Distances of diagonal Hessians, scale-free", "hessian_diagonal_distances", "hessian_diagonal"),
    ("Cosines of Hessians", "hessian_cosines", None),
    ("Cosines of gradients", "gradient_cosines", None),
)
# Below this share of the largest value there is only rounding error.
_SMALLEST = 1e-9
_POINTS = 400


def analysis_page(path: Path) -> Page:
    """Return the page of a file that ``fishr analyze``, ``fishr landscape`` or a run's recording wrote.

    Args:
        path: The file, or the folder of an analysis's figures beside it.

    Raises:
        InputError: No such file, or one of another kind.

    Example:
        >>> analysis_page(Path("runs/fishr/analysis.h5"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: runs/fishr/analysis.h5: no such file...
    """
    file = path if path.is_file() else path.with_suffix(".h5")
    kind = read_header(file).kind
    if kind == ANALYSIS:
        analysis = load_analysis(file)
        return Page(analysis.name, f"an analysis of {analysis.source['path']}", analysis_sections(analysis))
    if kind == SURFACE:
        surface = load_surface(file)
        films = [film for film in [file.with_suffix(".gif")] if film.is_file()]
        section = landscape_section([surface], films)
        return Page(file.stem, f"a landscape of {surface.source.get('path', 'a run')}", [section])
    if (history := load_history(file)) is None:
        raise InputError(f"{path}: {kind}, expected an analysis, a landscape, statistics or features")
    return Page(history.name, "statistics recorded while training", [history_section([history])])


def analysis_sections(analysis: Analysis) -> list[Section]:
    """Return the headlines, each domain's numbers, pairs of domains, and curvature."""
    used = zip(analysis.domains, analysis.samples, analysis.rows, strict=True)
    samples = ", ".join(f"{name} {n} of {rows}" if n < rows else f"{name} {rows}" for name, n, rows in used)
    subject = (
        f"The head of {analysis.name} at step {analysis.source['step']}: {analysis.layout.size} parameters, "
        f"{analysis.loss}. Samples: {samples}."
    )
    sections = [Section("Analysis", [Text(subject), _headline_table(analysis), _domain_table(analysis)])]
    if len(analysis.domains) > 1:
        sections.append(Section("Between domains", [_pair_chart(analysis, *pair) for pair in _PAIRS]))
    return [*sections, Section("Curvature", _curvature(analysis))]


def history_section(histories: Sequence[History]) -> Section:
    """Return the recorded statistics of runs over their steps."""
    charts = list[Block]()
    for name, title in CURVES.items():
        parts = list[tuple[list[int], list[Curve]]]()
        for history in histories:
            values: Tensor = getattr(history, name).double()
            curve = values.mean(1) if values.ndim > 1 else values
            parts.append((history.steps.tolist(), [Curve(history.name, curve.tolist())]))
        steps, curves = aligned(parts)
        scale = "linear" if name == "cosine" else "log"
        charts.append(curve_chart(title[:1].upper() + title[1:], steps, curves, scale=scale))
    return Section("Distances while training", charts)


def _headline_table(analysis: Analysis) -> Table:
    entries = diagnostics()
    rows = [
        (one.title, one.value, one.error, one.unit, entries[name].explanation.get("large", "").replace("``", ""))
        for name, one in headlines(analysis).items()
    ]
    head = ("headline, training domains", "value", "± estimated", "unit", "large means")
    return Table(head, rows, ("", ".4g", ".1g", "", ""), "Numbers that can be compared between runs.")


def _domain_table(analysis: Analysis) -> Table:
    each = {name: q for name, q in (analysis.quantities | analysis.network).items() if q.axes == ("domain",)}
    rows = [
        (name, *map(percentage if name == "accuracy" else float, q.value.tolist()), q.unit) for name, q in each.items()
    ]
    splits = zip(analysis.domains, analysis.splits, strict=True)
    head = ("each domain", *(f"{name} ({split})" for name, split in splits), "unit")
    return Table(head, rows, ("", *[".4g"] * len(analysis.domains), ""), "Numbers of each domain.")


def _pair_chart(analysis: Analysis, title: str, name: str, scale: str | None) -> Chart:
    matrix, kind = analysis.quantities[name].value.double(), "cosine"
    if scale is not None:
        mean = analysis.quantities[scale].value.double()[: len(analysis.training)].mean(0)
        matrix, kind = matrix / mean.square().sum().clamp(min=torch.finfo(torch.double).tiny), "distance"
        matrix = matrix.masked_fill(torch.eye(len(matrix), dtype=torch.bool), math.nan)
    apart = matrix[~torch.eye(len(matrix), dtype=torch.bool)]
    text = f"{len(matrix)} domains, {float(apart.min()):.3g} to {float(apart.max()):.3g} between them"
    shown: Kind = kind
    return matrix_chart(title, analysis.domains, analysis.domains, matrix.tolist(), kind=shown, text=text)


def _curvature(analysis: Analysis) -> list[Block]:
    values = analysis.quantities["top_eigenvalues"].value.double()
    floor = _SMALLEST * float(values.max())
    curves = [
        Curve(name, [value if value > floor else None for value in row.tolist()])
        for name, row in zip(analysis.domains, values, strict=True)
    ]
    ranks = range(1, values.shape[1] + 1)
    title = "Largest eigenvalues of the head's Hessians"
    charts: list[Block] = [
        curve_chart(title, ranks, curves, x_title="rank", y_title="loss/parameter²", scale="log"),
        _scatter(analysis),
    ]
    if "spectral_density" in analysis.network:
        charts.append(_density(analysis, analysis.network["spectral_density"]))
    negative = int((values < -floor).sum())
    return [*charts, Text(f"{negative} negative eigenvalues are left out.")] if negative else charts


def _scatter(analysis: Analysis) -> Chart:
    variances, hessians = (
        analysis.quantities[n].value.double().numpy() for n in ("gradient_variance", "hessian_diagonal")
    )
    groups = dict[str, tuple[list[float], list[float]]]()
    for name, variance, hessian in zip(analysis.domains, variances, hessians, strict=True):
        shown = np.flatnonzero((variance > _SMALLEST * variance.max()) & (hessian > _SMALLEST * hessian.max()))
        if len(shown) > _POINTS:
            shown = np.random.default_rng(0).choice(shown, _POINTS, replace=False)
        groups[name] = hessian[shown].tolist(), variance[shown].tolist()
    cosines = analysis.quantities["variance_hessian_cosine"].value.tolist()
    text = "; ".join(f"{name}: cosine {cosine:.3f}" for name, cosine in zip(analysis.domains, cosines, strict=True))
    titles = {"x_title": "diagonal Hessian, loss/parameter²", "y_title": "variance, (loss/parameter)²"}
    return point_chart("Gradient variance against diagonal Hessian, a point a parameter", groups, text, **titles)


def _density(analysis: Analysis, quantity: Quantity) -> Chart:
    densities = quantity.value.double().numpy()
    places = np.linspace(densities[:, 0].min(), densities[:, 0].max(), 600)
    curves = [
        Curve(name, np.interp(places, at, density, left=0.0, right=0.0).tolist())
        for name, (at, density) in zip(analysis.domains, densities, strict=True)
    ]
    floor = _SMALLEST * float(densities[:, 1].max())
    kept = [Curve(one.name, [v if v is not None and v > floor else None for v in one.values]) for one in curves]
    title = "Spectral density of the whole network's Hessians"
    return curve_chart(
        title, places.tolist(), kept, x_title="eigenvalue, loss/parameter²", y_title="density", scale="log"
    )
