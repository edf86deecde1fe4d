"""Heat maps: each value in its cell."""

import math

import pytest
import vl_convert

from fishr.reports import matrix_chart


@pytest.mark.parametrize(("kind", "kept"), [("share", 3), ("cosine", 3), ("distance", 2)])
def test_each_number_that_is_known_has_a_cell(kind, kept):
    values = [[0.5, None, math.nan], [0.0, 1.0, None]]
    chart = matrix_chart("pairs", ["a", "b"], ["a", "b", "c"], values, kind=kind, text="")
    assert len(chart.spec["data"]["values"].splitlines()) == 1 + kept
    svg = vl_convert.vegalite_to_svg(dict(chart.spec, width=300))
    assert svg.count('aria-roledescription="rect mark"') == kept


def test_only_legible_numbers_are_written_into_the_cells():
    for side, layers in ((10, 2), (11, 1)):
        names = [f"class {number}" for number in range(side)]
        chart = matrix_chart("pairs", names, names, [[0.5] * side] * side, kind="share", text="")
        assert len(chart.spec["layer"]) == layers


@pytest.mark.parametrize("values", [[[0.5, 0.5], [0.5, 0.5]], [[None, None], [None, None]]])
def test_distances_without_a_range_have_colors(values):
    chart = matrix_chart("pairs", ["a", "b"], ["a", "b"], values, kind="distance", text="")
    low, high = chart.spec["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert 0 < low < high
    vl_convert.vegalite_to_svg(dict(chart.spec, width=300))
