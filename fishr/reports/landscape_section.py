"""The section of landscapes: each domain's risk on a plane or a line through weight space."""

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fishr.landscape.surface import Surface
from fishr.reports.charts import Curve, csv_data, curve_chart
from fishr.reports.page import Block, Chart, Picture, Section, Text

_LEVELS = 12
# Beyond this ratio, levels are spaced by ratio.
_LOGARITHMIC = 8.0
_FILM = 2_000_000  # bytes
_WHERE = {
    "random": "in two random directions",
    "line": "along random lines",
    "pca": "on the plane of the checkpoints' first two principal components; the line is the run's path",
    "checkpoints": "on the plane through three checkpoints",
    "eigen": "along the two eigenvectors of a domain's Hessian with the largest eigenvalues",
    "gradients": "on the plane of two domains' gradients",
    "interpolation": "on the line to the weights of another run",
}


def landscape_section(surfaces: Sequence[Surface], films: Sequence[Path] = ()) -> Section:
    """Return charts of the risk of each domain, on levels that a surface's domains share, and films as pictures."""
    blocks = list[Block]()
    for surface in surfaces:
        step = surface.source.get("step")
        at = f" of step {step}" if step else ""
        blocks.append(Text(f"Risks around the weights{at} {_WHERE[surface.directions.kind]}."))
        blocks += _plane(surface) if surface.plane else [_line(surface)]
    return Section("Landscapes", [*blocks, *map(_film, films)])


def _film(path: Path) -> Block:
    content = path.read_bytes()
    if len(content) > _FILM:
        return Text(
            f"The film {path.name} is too large for a page ({len(content) / 1e6:.1f} MB); open the file itself."
        )
    url = f"data:image/gif;base64,{base64.b64encode(content).decode()}"
    return Picture(
        f"{path.stem}: the same plane around each checkpoint", url, "risks of all domains over the checkpoints"
    )


def _line(surface: Surface) -> Chart:
    interpolation = surface.directions.kind == "interpolation"
    x_title = (
        f"share of {surface.directions.labels[1]} in the weights" if interpolation else "distance from the weights"
    )
    curves = [
        Curve(name, risks.tolist(), split)
        for name, split, risks in zip(surface.titles, surface.splits, surface.risks, strict=True)
    ]
    lowest, highest = float(surface.risks.nan_to_num(math.inf).min()), float(surface.risks.nan_to_num(-math.inf).max())
    scale = "log" if highest > 20 * lowest > 0 else "linear"
    title = "Risk between two runs" if interpolation else f"Risk, mean over {len(surface.directions.vectors)} lines"
    at, names = surface.axes[0].tolist(), surface.every
    return curve_chart(title, at, curves, names=names, x_title=x_title, y_title="loss", scale=scale)


def _plane(surface: Surface) -> list[Chart]:
    losses = surface.risks.double().numpy()
    levels = _levels(losses)
    return [
        _contours(f"{name} ({split})", surface, risks, levels)
        for name, split, risks in zip(surface.titles, surface.splits, losses, strict=True)
    ]


def _levels(losses: Any) -> list[float]:
    finite = losses[np.isfinite(losses)]
    if not finite.size:
        return [0.0]
    low, high = float(finite.min()), float(np.quantile(finite, 0.98))
    spaced = np.geomspace if high > _LOGARITHMIC * low > 0 else np.linspace
    return [float(level) for level in spaced(low, high, _LEVELS)[1:-1]]


def _contours(title: str, surface: Surface, risks: Any, levels: list[float]) -> Chart:
    # A file of the risks alone, row by row, is a quarter as large as with coordinates.
    transform: list[dict[str, Any]] = [{"window": [{"op": "row_number", "as": "n"}]}]
    places = f"floor((datum.n - 1) / {risks.shape[1]})", f"(datum.n - 1) % {risks.shape[1]}"
    for name, axis, place in zip("xy", surface.axes, places, strict=True):
        for field, ends in zip((name, f"{name}2"), _edges(axis.double().numpy()), strict=True):
            transform.append({"calculate": f"{[float(f'{end:.5g}') for end in ends]}[{place}]", "as": field})
    names = surface.directions.names
    color = {
        "field": "v",
        "type": "quantitative",
        "scale": {"type": "threshold", "domain": levels, "scheme": "viridis"},
        "legend": {"title": "risk", "format": ".3g", "labelOverlap": "greedy", "labelSeparation": 8},
    }
    corners = {"x2": {"field": "x2"}, "y2": {"field": "y2"}}
    tooltip = [{"field": "v", "type": "quantitative", "title": "risk", "format": ".4g"}]
    x, y = (
        {
            "field": f,
            "type": "quantitative",
            "title": name,
            "scale": {"zero": False, "nice": False},
            "axis": {"grid": False},
        }
        for f, name in zip("xy", names, strict=True)
    )
    spec = {
        "width": "container",
        "height": 300,
        "encoding": {"x": x, "y": y},
        "layer": [
            {
                "transform": transform,
                "data": csv_data({"v": risks.ravel().tolist()}),
                "mark": "rect",
                "encoding": {"color": color, "tooltip": tooltip, **corners},
            },
            *_known_weights(surface),
        ],
    }
    at = float(risks[surface.center])
    return Chart(
        title,
        spec,
        f"{at:.3g} at the weights, {np.nanmin(risks):.3g} to {np.nanmax(risks):.3g} on the plane",
        many=True,
    )


def _known_weights(surface: Surface) -> list[dict[str, Any]]:
    """Return layers of the surface's own weights, a cross, and of others: a path, points, or lines to gradients."""
    kind, labels = surface.directions.kind, surface.directions.labels
    points = [{"x": x, "y": y, "name": n} for (x, y), n in zip(surface.directions.points.tolist(), labels, strict=True)]
    dots = {
        "data": {"values": points},
        "mark": {"type": "circle", "size": 24, "color": "#000", "stroke": "#fff", "clip": True},
    }
    layers = list[dict[str, Any]]()
    # Black within white is seen on all colors.
    strokes = {"color": "#fff", "strokeWidth": 2.6}, {"color": "#000", "strokeWidth": 1.2}
    if kind == "pca":
        ordered = {"values": [point | {"n": n} for n, point in enumerate(points)]}
        order = {"order": {"field": "n", "type": "quantitative"}}
        layers = [{"data": ordered, "mark": {"type": "line", "clip": True, **s}, "encoding": order} for s in strokes]
        # The names of all points of a path would cover it.
        points = points[:1]
    if kind == "gradients":
        ends = {"x2": {"datum": 0}, "y2": {"datum": 0}}
        layers = [{"data": {"values": points}, "mark": {"type": "rule", **s}, "encoding": ends} for s in strokes]
    if points:
        name = {"type": "text", "dy": -9, "color": "#fff", "stroke": "#000", "strokeWidth": 3, "strokeJoin": "round"}
        plain = name | {"stroke": None, "strokeWidth": 0}
        text = {"text": {"field": "name"}}
        layers += [dots, *({"data": {"values": points}, "mark": one, "encoding": text} for one in (name, plain))]
    cross = {
        "type": "point",
        "shape": "cross",
        "size": 90,
        "filled": True,
        "color": "#fff",
        "stroke": "#000",
        "opacity": 1,
    }
    return [*layers, {"data": {"values": [{"x": 0, "y": 0}]}, "mark": cross}]


def _edges(axis: Any) -> tuple[Any, Any]:
    """Return where each cell begins and ends; a little beyond its neighbor's, so that no seam shows."""
    if len(axis) == 1:
        return axis - 0.5, axis + 0.5
    middles = (axis[1:] + axis[:-1]) / 2
    inner = np.concatenate([[2 * axis[0] - middles[0]], middles, [2 * axis[-1] - middles[-1]]])
    return inner[:-1], np.append(inner[1:-1] + 0.08 * np.diff(inner)[:-1], inner[-1])
