"""Coordinates: the origin is always a point, and what is known lies inside."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fishr.errors import InputError
from fishr.landscape import Directions, axis, grid_axes, random_lines

LENGTHS = st.floats(0, 1e3, allow_nan=False).map(lambda x: 0.0 if x < 1e-3 else x)


@given(low=LENGTHS.map(lambda x: -x), high=LENGTHS, points=st.integers(2, 60))
def test_an_axis_covers_its_range_in_even_steps_with_zero_on_it(low, high, points):
    if low == high:
        return
    if low < 0 < high and points == 2:
        # Two points cannot cover both sides of a third.
        assert 0.0 in axis(low, high, points)
        return
    found = axis(low, high, points)
    assert len(found) == points
    assert (found == 0).sum() == 1
    assert found[0] <= low + 1e-9 * (high - low)
    assert found[-1] >= high - 1e-9 * (high - low)
    steps = found.diff()
    torch.testing.assert_close(steps, steps[:1].expand(points - 1))


def test_an_odd_symmetric_axis_is_exact():
    assert axis(-1.0, 1.0, 51)[[0, 25, 50]].tolist() == [-1.0, 0.0, 1.0]
    assert axis(-1.0, 1.0, 1).tolist() == [0.0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (1.0, 2.0), (-2.0, -1.0), (-1.0, float("inf"))])
def test_a_range_without_the_origin_is_refused(low, high):
    with pytest.raises(InputError, match="grid: got a range"):
        axis(low, high, 5)


def _with_points(kind, points):
    vectors = ({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])})
    return Directions(kind, vectors, ("a", "b"), points=torch.tensor(points, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["pca", "checkpoints"])
def test_planes_through_checkpoints_reach_beyond_them(kind):
    directions = _with_points(kind, [[4.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    xs, ys = grid_axes(directions, (11, 8))
    assert xs[0] <= -1.0
    assert xs[-1] >= 5.0
    assert ys[0] <= -1.0
    assert ys[-1] >= 3.0
    wider = grid_axes(directions, (11, 8), span=2.0)
    assert wider[0][0] < xs[0]


def test_the_other_kinds():
    plane = _with_points("random", [])
    assert [part.tolist() for part in grid_axes(plane, (3, 1), 2.0)] == [[-2.0, 0.0, 2.0], [0.0]]
    line = Directions("interpolation", ({"w": torch.ones(1)},), ("a",))
    assert [part.tolist() for part in grid_axes(line, (3,))] == [[0.0, 0.5, 1.0]]
    with pytest.raises(InputError, match="expected at least 2 for an interpolation"):
        grid_axes(line, (1,))


@pytest.mark.parametrize(("points", "span", "part"), [((3, 3), 1.0, "one number"), ((3,), 0.0, "span: got 0.0")])
def test_other_grids_and_spans_are_refused(points, span, part):
    with pytest.raises(InputError, match=part):
        grid_axes(random_lines({"w": torch.ones(1, 1)}, 0, 1), points, span)
    with pytest.raises(InputError, match="expected two numbers"):
        grid_axes(_with_points("random", []), (3,))
    with pytest.raises(InputError, match="at least 1"):
        grid_axes(_with_points("random", []), (3, 0))
