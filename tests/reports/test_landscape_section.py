"""Landscapes: each risk at its place."""

import re

import pytest
import torch
import vl_convert

from fishr.landscape.directions import Directions
from fishr.landscape.plane import Scores
from fishr.landscape.surface import Surface
from fishr.reports.landscape_section import landscape_section


def test_each_risk_of_a_plane_is_at_its_coordinates_on_levels_that_domains_share():
    axes = torch.tensor([-1.0, 0.0, 3.0]), torch.tensor([-2.0, 0.0])
    losses = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[7.0, 8.0], [9.0, torch.nan], [11.0, 12.0]]])
    vector = {"w": torch.ones(2)}
    directions = Directions("random", (vector, vector), ("first", "second"), seed=0)
    splits, scores = ("training", "evaluation"), Scores(losses, losses)
    surface = Surface(directions, axes, ("photo", "art"), splits, scores, ("w",), "")
    _, photo, art = landscape_section([surface]).blocks
    assert photo.text == "4 at the weights, 1 to 6 on the plane"
    assert photo.spec["layer"][0]["encoding"]["color"] == art.spec["layer"][0]["encoding"]["color"]
    svg = vl_convert.vegalite_to_svg(dict(photo.spec, width=300))
    labels = re.findall(r'aria-label="first: ([^;]*); second: ([^;]*);.*?; risk: ([^;"]*)', svg)
    found = {(float(x.replace("−", "-")), float(y.replace("−", "-"))): float(risk) for x, y, risk in labels}
    # Cells begin in the middle between two places.
    assert found == {(-1.5, -3): 1, (-1.5, -1): 2, (-0.5, -3): 3, (-0.5, -1): 4, (1.5, -3): 5, (1.5, -1): 6}


def known_weights(kind, points, labels):
    """What a chart draws above the risks of a plane, by the kind of its marks."""
    axes, vector = (torch.tensor([-1.0, 0.0, 1.0]),) * 2, {"w": torch.ones(2)}
    directions = Directions(kind, (vector, vector), ("x", "y"), None, torch.as_tensor(points).double(), labels)
    losses = torch.zeros(1, 3, 3)
    surface = Surface(directions, axes, ("photo",), ("training",), Scores(losses, losses), ("w",), "")
    chart = landscape_section([surface]).blocks[1]
    svg = vl_convert.vegalite_to_svg(dict(chart.spec, width=300))
    found = re.findall('aria-roledescription="([^"]*)"', svg)
    return {name: found.count(name) for name in ("line mark", "circle", "rule mark", "text mark", "point")}


def test_a_plane_shows_the_weights_that_it_goes_through():
    points, labels = [[-0.8, -0.5], [-0.4, 0.2], [0.0, 0.0]], ("step 0", "step 10", "step 20")
    assert known_weights("pca", points, labels) == {
        "line mark": 2,
        "circle": 3,
        "rule mark": 0,
        "text mark": 2,
        "point": 1,
    }
    assert known_weights("checkpoints", points, labels)["text mark"] == 6
    assert known_weights("gradients", points[:2], ("a", "b"))["rule mark"] == 4
    assert known_weights("random", torch.zeros(0, 2), ())["circle"] == 0


def test_a_film_is_a_picture_unless_it_is_large(tmp_path):
    small, large = tmp_path / "small.gif", tmp_path / "large.gif"
    small.write_bytes(b"GIF89a")
    large.write_bytes(bytes(2_000_001))
    picture, text = landscape_section([], [small, large]).blocks
    assert picture.url == "data:image/gif;base64,R0lGODlh"
    assert "large.gif is too large for a page (2.0 MB)" in text.text


def test_some_domains_have_the_colors_of_all():
    losses = torch.zeros(1, 2, 1)
    line = Directions("line", ({"w": torch.ones(2)},), ("a",), seed=0)
    axis, every = torch.tensor([0.0, 1.0]), ("photo", "art", "sketch")
    surface = Surface(line, (axis,), ("art",), ("training",), Scores(losses, losses), ("w",), "", every=every)
    color = landscape_section([surface]).blocks[1].spec["layer"][0]["encoding"]["color"]
    assert tuple(color["scale"]["domain"]) == every
    assert color["legend"]["values"] == ["art"]


@pytest.mark.parametrize(
    ("kind", "title"), [("line", "Risk, mean over 2 lines"), ("interpolation", "Risk between two runs")]
)
def test_lines_are_curves_over_the_distance(kind, title):
    count = 2 if kind == "line" else 1
    directions = Directions(kind, ({"w": torch.ones(2)},) * count, ("a",) * count, seed=0, labels=("erm", "fishr"))
    losses = torch.arange(3.0).view(1, 3, 1).expand(1, 3, count)
    axis = torch.tensor([0.0, 0.5, 1.0])
    surface = Surface(directions, (axis,), ("photo",), ("training",), Scores(losses, losses), ("w",), "")
    _, chart = landscape_section([surface]).blocks
    assert chart.title == title
    assert chart.spec["data"]["values"] == "x,c0\n0,0\n0.5,1\n1,2\n"
