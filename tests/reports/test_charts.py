"""Charts as Vega-Lite compiles them, and the data in them."""

import csv
import math
from io import StringIO

import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from fishr.errors import InputError
from fishr.reports import Curve, csv_data, curve_chart


def marks(chart, kind):
    """The number of drawn paths of a kind of mark."""
    return vl_convert.vegalite_to_svg(dict(chart.spec, width=400)).count(f'aria-roledescription="{kind}"')


@given(st.lists(st.tuples(st.floats(width=32), st.text(st.characters(codec="utf-8", exclude_characters="\r\0")))))
def test_data_are_read_back_to_five_digits(rows):
    columns = {"x": [number for number, _ in rows], "name": [name for _, name in rows]}
    found = list(csv.DictReader(StringIO(csv_data(columns)["values"], newline="")))
    for (number, name), row in zip(rows, found, strict=True):
        assert row["name"] == name
        assert float(row["x"]) == pytest.approx(number, rel=1e-4) if math.isfinite(number) else row["x"] == ""


def test_each_curve_is_a_line_over_the_places_where_it_has_a_value():
    curves = [Curve("a", [1.0, 2.0, 3.0], "training"), Curve("b", [None, 5.0, math.nan], "evaluation")]
    chart = curve_chart("risk", [0, 10, 20], curves, names=["b", "a", "c"])
    assert marks(chart, "line mark") == 2
    assert chart.spec["data"]["values"] == "x,c0,c1\n0,1,\n10,2,5\n20,3,\n"
    assert chart.text == "a (training): 1 to 3; b (evaluation): 5 to 5"
    color = chart.spec["layer"][0]["encoding"]["color"]
    # Colors go by the domains of the whole page, the legend by the curves.
    assert (color["scale"]["domain"], color["legend"]["values"]) == (["b", "a", "c"], ["a", "b"])
    shown = [one["title"] for one in chart.spec["layer"][-1]["encoding"]["tooltip"]]
    assert shown == ["step", "a (training)", "b (evaluation)"]


@pytest.mark.parametrize(("highest", "ends"), [(0.9, {"domain": [0, 1]}), (0.02, {"zero": True})])
def test_shares_begin_at_zero_and_small_ones_fill_the_chart(highest, ends):
    chart = curve_chart("accuracy", [0, 1], [Curve("a", [0.01, highest]), Curve("b", [math.nan, None])], percent=True)
    assert chart.spec["layer"][0]["encoding"]["y"]["scale"] == ends


def test_long_names_keep_their_ends_in_legends():
    names = [f"a hospital in a country that is far away, department {number}" for number in range(12)]
    chart = curve_chart("risk", [0, 1], [Curve(name, [1.0, 2.0]) for name in names])
    svg = vl_convert.vegalite_to_svg(dict(chart.spec, width=400))
    assert all(f"…{name[-18:]}<" in svg for name in names)


@pytest.mark.parametrize(("scale", "kept"), [("linear", 3), ("log", 1), ("symlog", 3)])
def test_a_logarithmic_axis_leaves_out_what_it_cannot_show(scale, kept):
    chart = curve_chart("risk", [0, 1, 2], [Curve("a", [-1.0, 0.0, 1.0])], scale=scale)
    assert sum(line.split(",")[1] != "" for line in chart.spec["data"]["values"].splitlines()[1:]) == kept
    assert marks(chart, "line mark") == 1


def test_long_curves_keep_their_ends():
    chart = curve_chart("risk", range(100_000), [Curve("a", [float(step) for step in range(100_000)])])
    places = [int(line.split(",")[0]) for line in chart.spec["data"]["values"].splitlines()[1:]]
    assert len(places) <= 601
    assert (places[0], places[-1]) == (0, 99_999)


def test_a_chart_of_one_step_shows_a_point():
    assert marks(curve_chart("risk", [0], [Curve("a", [1.0])]), "point") == 1


def test_a_chart_of_no_curve_is_refused():
    with pytest.raises(InputError, match="risk: got no curve"):
        curve_chart("risk", [0], [])
