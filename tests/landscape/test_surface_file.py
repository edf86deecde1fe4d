"""Surfaces on disk: what goes in comes out, under the names that other tools read."""

import h5py
import numpy as np
import pytest
import torch

from fishr.errors import InputError
from fishr.landscape import (
    Directions,
    Frames,
    Scores,
    Surface,
    chord,
    load_surface,
    random_directions,
    random_lines,
    save_surface,
)

WEIGHTS = {"head.weight": torch.randn(2, 3), "head.bias": torch.randn(2)}


def _surface(shape=(4, 3), frames=False, holes=False):
    losses = torch.rand(3, *shape, dtype=torch.float64)
    if holes:
        losses[:, -1] = torch.nan
    seen = None
    if frames:
        seen = Frames((0, 10), Scores(torch.rand(2, 3, *shape), torch.rand(2, 3, *shape)))
    return Surface(
        random_directions(WEIGHTS, 7),
        tuple(torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape),
        ("photo", "sketch", "art"),
        ("training", "training", "evaluation"),
        Scores(losses, torch.rand(3, *shape, dtype=torch.float64)),
        tuple(WEIGHTS),
        "by hand",
        seen,
        {"path": "run", "key": "abc"},
        '{"seed": 7}',
    )


def _lines():
    return Surface(
        random_lines(WEIGHTS, 0, 4),
        (torch.linspace(-1, 1, 5, dtype=torch.float64),),
        ("photo", "art"),
        ("training", "evaluation"),
        Scores(torch.rand(2, 5, 4, dtype=torch.float64), torch.rand(2, 5, 4, dtype=torch.float64)),
        tuple(WEIGHTS),
        "by hand",
    )


def _same(one, other):
    assert (one.domains, one.splits, one.parameters) == (other.domains, other.splits, other.parameters)
    assert (one.route, dict(one.source), one.settings) == (other.route, dict(other.source), other.settings)
    mine, theirs = one.directions, other.directions
    assert (mine.kind, mine.names, mine.seed, mine.labels) == (theirs.kind, theirs.names, theirs.seed, theirs.labels)
    assert mine.explained == theirs.explained
    assert torch.equal(mine.points, theirs.points)
    for a, b in zip(mine.vectors, theirs.vectors, strict=True):
        assert list(a) == list(b)
        assert all(torch.equal(a[name], b[name]) for name in a)
    pairs = [(one.scores.losses, other.scores.losses), (one.scores.accuracies, other.scores.accuracies)]
    assert (one.frames is None) == (other.frames is None)
    if one.frames is not None:
        assert one.frames.steps == other.frames.steps
        pairs += [(one.frames.scores.losses, other.frames.scores.losses)]
        pairs += [(one.frames.scores.accuracies, other.frames.scores.accuracies)]
    for a, b in [*pairs, *zip(one.axes, other.axes, strict=True)]:
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "surface",
    [_surface(), _surface((1, 1)), _surface((1, 5)), _surface(frames=True), _surface(holes=True), _lines()],
    ids=["plane", "one point", "one row", "frames", "holes", "lines"],
)
def test_what_goes_in_comes_out(tmp_path, surface):
    save_surface(tmp_path / "a.h5", surface)
    _same(surface, load_surface(tmp_path / "a.h5"))


def test_an_interpolation_comes_out(tmp_path):
    other = {name: value + 1 for name, value in WEIGHTS.items()}
    directions = chord(WEIGHTS, other, ("one", "other"))
    ends, scores = torch.tensor([0.0, 1.0]), torch.rand(1, 2, 1)
    surface = Surface(directions, (ends,), ("photo",), ("training",), Scores(scores, scores), tuple(WEIGHTS), "")
    save_surface(tmp_path / "a.h5", surface)
    _same(surface, load_surface(tmp_path / "a.h5"))


def test_names_that_other_tools_read(tmp_path):
    surface = _surface()
    save_surface(tmp_path / "a.h5", surface)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["xcoordinates"].shape == (4,)
        assert file["ycoordinates"].shape == (3,)
        losses, accuracies = (part[:2].mean(0).numpy() for part in (surface.scores.losses, surface.scores.accuracies))
        np.testing.assert_allclose(file["train_loss"][()], losses)
        np.testing.assert_allclose(file["train_acc"][()], 100 * accuracies)
        for group, vector in zip(("xdirection", "ydirection"), surface.directions.vectors, strict=True):
            assert list(file[group]) == ["0", "1"]
            np.testing.assert_array_equal(file[group]["0"][()], vector["head.weight"].numpy())
        assert file["domains"]["2"]["loss"].shape == (4, 3)
        assert file["domains"]["2"]["name"][()].decode() == "art"
        assert file["mode"][()].decode() == "eval"


def test_a_line_has_no_second_axis(tmp_path):
    surface = _lines()
    save_surface(tmp_path / "a.h5", surface)
    with h5py.File(tmp_path / "a.h5") as file:
        assert "ycoordinates" not in file
        assert "ydirection" not in file
        np.testing.assert_allclose(file["train_loss"][()], surface.scores.losses[0].mean(1).numpy())


def test_without_training_domains_the_mean_is_of_all(tmp_path):
    scores = torch.rand(2, 1, 1, dtype=torch.float64)
    surface = Surface(
        random_directions(WEIGHTS, 0),
        (torch.zeros(1), torch.zeros(1)),
        ("photo", "art"),
        ("evaluation", "evaluation"),
        Scores(scores, scores),
        tuple(WEIGHTS),
        "",
    )
    save_surface(tmp_path / "a.h5", surface)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_allclose(file["train_loss"][()], scores.mean(0).numpy())


def test_nothing_is_overwritten(tmp_path):
    save_surface(tmp_path / "a.h5", _surface())
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        save_surface(tmp_path / "a.h5", _surface())
    assert (tmp_path / "a.h5").read_bytes() == before


def test_a_file_that_lacks_something_is_damaged(tmp_path):
    from fishr.data.caches.hdf5 import save_tree
    from fishr.landscape.surface_file import KIND, surface_tree

    tree = surface_tree(_surface())
    del tree["domains"]
    save_tree(tmp_path / "a.h5", KIND, tree)
    with pytest.raises(InputError, match=r"a.h5: damaged \(it lacks 'domains'\)"):
        load_surface(tmp_path / "a.h5")


def test_scores_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"got scores of shape \(1, 3, 2\), expected \(1, 2, 3\)"):
        Surface(
            random_directions(WEIGHTS, 0),
            (torch.zeros(2), torch.zeros(3)),
            ("photo",),
            ("training",),
            Scores(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2)),
            tuple(WEIGHTS),
            "",
        )


def test_the_centre_is_where_both_coordinates_are_zero():
    assert _surface((5, 3)).center == (2, 1)
    assert _lines().center == (2,)
    assert isinstance(_surface().directions, Directions)
