"""Heat maps over pairs: of classes, and of domains."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from fishr.reports.charts import Number, csv_data, elided
from fishr.reports.page import Chart

Kind = Literal["share", "distance", "cosine"]
# Numbers in more columns than these are not legible.
_LEGIBLE = 10


def matrix_chart(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[Number]],
    *,
    kind: Kind,
    text: str,
    x_title: str = "",
    y_title: str = "",
    counts: Sequence[Sequence[int]] | None = None,
) -> Chart:
    """Return a heat map with a number in each cell, if there are few, or a legend, and a number under the pointer.

    Args:
        title: Heading of the chart.
        rows: Name of each row.
        columns: Name of each column.
        values: By row; None and NaN are left out.
        kind: "share": from 0 to 1, shown in percent; "distance": positive, on a logarithmic scale; "cosine": from -1
            to 1.
        text: The chart in words.
        x_title: Title of the columns.
        y_title: Title of the rows.
        counts: Whole numbers that the pointer shows beside the values.

    Example:
        >>> chart = matrix_chart("art", ["cat"], ["cat", "dog"], [[0.75, 0.25]], kind="share", text="one class")
        >>> chart.spec["data"]["values"].splitlines()
        ['r,c,v', 'cat,cat,0.75', 'cat,dog,0.25']
    """
    known = [
        (row, column, float(value), counts[i][j] if counts else 0)
        for i, (row, found) in enumerate(zip(rows, values, strict=True))
        for j, (column, value) in enumerate(zip(columns, found, strict=True))
        if value is not None and math.isfinite(value) and (kind != "distance" or value > 0)
    ]
    r, c, v, n = zip(*known, strict=True) if known else ((), (), (), ())
    scale, light = _colors(kind, v)
    form = ".1%" if kind == "share" else ".2f" if kind == "cosine" else ".3g"
    legible = len(columns) <= _LEGIBLE
    legend = (
        None
        if legible
        else {
            "title": None,
            "format": ".0%" if kind == "share" else ".2~g",
            "gradientLength": 180,
            "direction": "horizontal",
        }
    )
    tooltip: list[dict[str, Any]] = [
        {"field": "r", "type": "nominal", "title": y_title or "row"},
        {"field": "c", "type": "nominal", "title": x_title or "column"},
        {"field": "v", "type": "quantitative", "title": kind, "format": form},
    ]
    if counts:
        tooltip.append({"field": "n", "type": "quantitative", "title": "samples", "format": ",d"})
    color = {"field": "v", "type": "quantitative", "scale": scale, "legend": legend}
    layers: list[dict[str, Any]] = [{"mark": "rect", "encoding": {"color": color, "tooltip": tooltip}}]
    if legible:
        number = {"field": "v", "type": "quantitative", "format": ".0%" if kind == "share" else form}
        size = {"expr": f"min(11, width / {2.5 * len(columns)})"}
        shade = {"condition": {"test": light, "value": "#111"}, "value": "#fff"}
        layers.append(
            {"mark": {"type": "text", "tooltip": False, "fontSize": size}, "encoding": {"text": number, "color": shade}}
        )
    axis = {"labelLimit": 130, "labelExpr": elided(18), "grid": False, "domain": False, "ticks": False}
    angle = 0 if sum(map(len, columns)) <= 24 else -40 if len(columns) < 6 else -90
    spec = {
        "width": "container",
        "height": max(120, min(34 * len(rows), 420)),
        "data": csv_data({"r": r, "c": c, "v": v} | ({"n": n} if counts else {})),
        "encoding": {
            "x": _side("c", x_title, columns, axis | {"labelAngle": angle}),
            "y": _side("r", y_title, rows, axis),
        },
        "layer": layers,
    }
    return Chart(title, spec, text, many=len(known) > 600)


def _side(field: str, title: str, names: Sequence[str], axis: dict[str, Any]) -> dict[str, Any]:
    return {"field": field, "type": "nominal", "title": title or None, "scale": {"domain": list(names)}, "axis": axis}


def _colors(kind: Kind, values: Sequence[float]) -> tuple[dict[str, Any], str]:
    """Return the scale of the colors, and where they are light."""
    if kind == "share":
        return {"scheme": "viridis", "domain": [0, 1]}, "datum.v > 0.6"
    if kind == "cosine":
        return {"scheme": "blueorange", "domain": [-1, 1]}, "abs(datum.v) < 0.7"
    low, high = min(values, default=1.0), max(values, default=1.0)
    # A single number has no range; a factor of two on either side puts it in the middle.
    low, high = (low, high) if high > 1.01 * low else (low / 2, 2 * high)
    return {"type": "log", "scheme": "viridis", "domain": [low, high]}, f"datum.v > {low**0.4 * high**0.6}"
