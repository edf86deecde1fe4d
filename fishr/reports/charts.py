"""Vega-Lite specifications of a report's charts, without colors of their own: a page has a palette for light and dark.

Drag moves a chart; the wheel with Ctrl, or a pinch, zooms; a double click shows it whole again.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, Literal

from attrs import evolve, frozen

from fishr.errors import InputError
from fishr.reports.page import Chart

Number = float | int | None
Scale = Literal["linear", "log", "symlog"]
# More points on a line than a wide screen has pixels only enlarge the file.
_POINTS = 600
# Characters of a name in a legend.
_LONGEST = 36
# Lines of a logarithmic axis between the powers of ten are faint.
DECADES: Mapping[str, Any] = {
    "gridOpacity": {"condition": {"test": "test(/^.?[01]e/, format(datum.value, '.0e'))", "value": 1}, "value": 0.25}
}
ZOOM: Mapping[str, Any] = {
    "name": "zoom",
    "select": {"type": "interval", "zoom": "wheel![event.ctrlKey || event.metaKey || event.shiftKey]"},
    "bind": "scales",
}


@frozen
class Curve:
    """A line of a chart: a name, which decides its color, values over x, and a style, which decides its dashes."""

    name: str
    values: Sequence[Number]
    style: str = ""


def csv_data(columns: Mapping[str, Sequence[object]]) -> dict[str, Any]:
    """Return columns of equal length as data of a specification, a few bytes a number; None and NaN are empty.

    Example:
        >>> csv_data({"x": [1, 2], "y": [0.123456, float("nan")]})["values"].splitlines()
        ['x,y', '1,0.12346', '2,']
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_short(cell) for cell in row] for row in zip(*columns.values(), strict=True))
    # Else a name such as 2020-01-01 becomes a date.
    parse = {
        name: "string" if any(isinstance(v, str) for v in column) else "number" for name, column in columns.items()
    }
    return {"values": text.getvalue(), "format": {"type": "csv", "parse": parse}}


def curve_chart(
    title: str,
    x: Sequence[float | int],
    curves: Sequence[Curve],
    *,
    names: Sequence[str] = (),
    x_title: str = "step",
    y_title: str = "",
    scale: Scale = "linear",
    percent: bool = False,
) -> Chart:
    """Return a chart of lines, with the values of all lines at the x under the pointer.

    Args:
        title: Heading of the chart.
        x: T places, ascending; of more than 600, equally many are left out between those that are drawn.
        curves: Each with T values, None and NaN where it has none; the first style in the alphabet has no dashes.
        names: Names in the order of their colors, where other charts have more names than this.
        x_title: Title of the axis.
        y_title: Likewise.
        scale: Of the y axis; "log" leaves out what is not positive.
        percent: Values are shares, shown in percent from 0, and to 100 if one is above a half.

    Raises:
        InputError: No curve.

    Example:
        >>> chart = curve_chart("accuracy", [0, 10], [Curve("photo", [0.5, 0.75]), Curve("sketch", [0.25, None])])
        >>> chart.text
        'photo: 0.5 to 0.75; sketch: 0.25 to 0.25'
        >>> len(chart.spec["layer"])
        3
    """
    if not curves:
        raise InputError(f"{title}: got no curve, expected at least one")
    every = math.ceil(len(x) / _POINTS)
    chosen = sorted({*range(0, len(x), every), len(x) - 1})
    columns = {f"c{index}": _drawable([curve.values[i] for i in chosen], scale) for index, curve in enumerate(curves)}
    highest = max((v for column in columns.values() for v in column if v is not None and math.isfinite(v)), default=1.0)
    form, y_axis = ".1%" if percent else ".4g", _y_axis(y_title, scale, percent, highest)
    styles, drawn = sorted({curve.style for curve in curves}), list(dict.fromkeys(c.name for c in curves))
    scale_of = {"domain": list(dict.fromkeys([*names, *drawn]))}
    color = {"scale": scale_of, "legend": {**legend(drawn), "values": drawn}}
    ranges, shades = [[1, 0], [5, 3], [1, 3]], {**legend(styles), "symbolStrokeColor": "gray"}
    dashes = {"scale": {"domain": styles, "range": ranges[: len(styles)]}, "legend": shades}
    layers = list[dict[str, Any]]()
    for index, curve in enumerate(curves):
        encoding = {
            "y": {"field": f"c{index}", "type": "quantitative", **y_axis},
            "color": {"datum": curve.name, **color},
        }
        if len(styles) > 1:
            encoding["strokeDash"] = {"datum": curve.style, **dashes}
        mark = {"type": "line", "point": len(chosen) == 1, "clip": True}
        layers.append({"mark": mark, "transform": [{"filter": f"isValid(datum.c{index})"}], "encoding": encoding})
    layers[0]["params"] = [ZOOM]
    labels = [f"{curve.name} ({curve.style})" if len(styles) > 1 else curve.name for curve in curves]
    layers.append(_readout(x_title, dict(zip(columns, labels, strict=True)), form))
    spec = {
        "width": "container",
        "height": 280,
        "data": csv_data({"x": [x[i] for i in chosen], **columns}),
        "encoding": {
            "x": {
                "field": "x",
                "type": "quantitative",
                "title": x_title,
                "scale": {"zero": False, "nice": False},
                "axis": {"tickMinStep": 1} if all(isinstance(place, int) for place in x) else {},
            }
        },
        "layer": layers,
    }
    ends = (_ends(label, curve.values, form) for label, curve in zip(labels, curves, strict=True))
    return Chart(title, spec, "; ".join(ends))


def aligned(parts: Sequence[tuple[Sequence[int], Sequence[Curve]]]) -> tuple[list[int], list[Curve]]:
    """Return curves over several lists of steps as curves over all of these steps."""
    steps = sorted({step for at, _ in parts for step in at})
    found = [(dict(zip(at, one.values, strict=True)), one) for at, curves in parts for one in curves]
    return steps, [evolve(one, values=[known.get(step) for step in steps]) for known, one in found]


def point_chart(
    title: str,
    groups: Mapping[str, tuple[Sequence[Number], Sequence[Number]]],
    text: str,
    *,
    x_title: str,
    y_title: str,
) -> Chart:
    """Return a chart of points in groups by color, on logarithmic axes with the line on which both are equal.

    Args:
        title: Heading of the chart.
        groups: Positive x and y of each group's points, by its name.
        text: The chart in words.
        x_title: Title of the axis.
        y_title: Likewise.

    Example:
        >>> chart = point_chart("sizes", {"photo": ([1.0, 10.0], [2.0, 9.0])}, "two points", x_title="x", y_title="y")
        >>> chart.spec["layer"][0]["data"]["values"].splitlines()
        ['name,x,y', 'photo,1,2', 'photo,10,9']
    """
    points = [(name, x, y) for name, columns in groups.items() for x, y in zip(*columns, strict=True)]
    names, xs, ys = zip(*points, strict=True) if points else ((), (), ())
    known = [[value for value in column if value is not None] for column in (xs, ys)]
    ends = max(min(one, default=1.0) for one in known), min(max(one, default=1.0) for one in known)
    x, y = (
        {"field": f, "type": "quantitative", "title": name, **_y_axis(name, "log")}
        for f, name in (("x", x_title), ("y", y_title))
    )
    color = {"field": "name", "type": "nominal", "scale": {"domain": list(groups)}, "legend": legend([*groups])}
    tooltip = [
        {"field": "name", "title": "domain"},
        *(
            {"field": f, "title": t, "format": ".4g", "type": "quantitative"}
            for f, t in (("x", x_title), ("y", y_title))
        ),
    ]
    mark = {"type": "point", "filled": True, "opacity": 0.5, "size": 18, "clip": True}
    points_layer = {"data": csv_data({"name": names, "x": xs, "y": ys}), "mark": mark, "params": [ZOOM]}
    equal = {
        "data": csv_data({"x": ends, "y": ends}),
        "mark": {"type": "line", "strokeDash": [4, 4], "strokeWidth": 1, "color": "gray", "clip": True},
    }
    spec = {
        "width": "container",
        "height": 280,
        "encoding": {"x": x, "y": y},
        "layer": [points_layer | {"encoding": {"color": color, "tooltip": tooltip}}, equal],
    }
    return Chart(title, spec, text, many=True)


def _readout(x_title: str, labels: Mapping[str, str], form: str) -> dict[str, Any]:
    """Return a rule at the x nearest to the pointer, with the value of each column there."""
    numbers = [{"field": f, "type": "quantitative", "title": label, "format": form} for f, label in labels.items()]
    nearest = {"type": "point", "fields": ["x"], "nearest": True, "on": "pointerover", "clear": "pointerout"}
    return {
        "mark": {"type": "rule"},
        "encoding": {
            "opacity": {"condition": {"param": "hover", "empty": False, "value": 0.6}, "value": 0},
            "tooltip": [{"field": "x", "type": "quantitative", "title": x_title}, *numbers],
        },
        "params": [{"name": "hover", "select": nearest}],
    }


def legend(names: Sequence[str]) -> dict[str, Any]:
    """Return a legend without a title, in as many columns as its names have room for."""
    width = 7 * min(_LONGEST, max(map(len, names), default=1)) + 36
    # Not the width of the chart, which depends on the labels of its axis and so on the size of the legend.
    columns = {"signal": f"max(1, floor((containerSize()[0] - 60) / {width}))"}
    return {"title": None, "columns": columns, "labelLimit": 0, "labelExpr": elided(_LONGEST)}


def elided(longest: int) -> str:
    """Return an expression of a label without the middle of a long name, whose end often tells it from others."""
    half = longest // 2
    cut = f"slice(datum.label, 0, {half}) + '…' + slice(datum.label, -{half})"
    return f"length(datum.label) > {longest} ? {cut} : datum.label"


def _y_axis(title: str, scale: Scale, percent: bool = False, highest: float = 1.0) -> dict[str, Any]:
    if percent:
        ends = {"domain": [0, 1]} if highest > 0.5 else {"zero": True}
        return {"title": title or None, "scale": ends, "axis": {"format": "~%"}}
    if scale == "linear":
        return {"title": title or None, "scale": {"zero": False}}
    constant = {"constant": 1e-4} if scale == "symlog" else {}
    axis = {"format": ".2~g", "tickCount": 6, **DECADES}
    return {"title": title or None, "scale": {"type": scale, **constant}, "axis": axis}


def _short(cell: object) -> object:
    if isinstance(cell, float):
        return f"{cell:.5g}" if math.isfinite(cell) else ""
    return cell


def _drawable(values: Sequence[Number], scale: Scale) -> list[Number]:
    return [None if value is None or (scale == "log" and value <= 0) else value for value in values]


def _ends(name: str, values: Sequence[Number], form: str) -> str:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return f"{name}: {known[0]:{form}} to {known[-1]:{form}}" if known else f"{name}: no value"
