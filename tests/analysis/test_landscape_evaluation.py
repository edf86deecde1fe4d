"""Landscapes in parts: each part once, whatever is killed in between; NaN for what is not there yet."""

import pytest
import torch

from fishr.analysis.landscape_evaluation import evaluate_parts, gathered
from fishr.analysis.landscape_plan import Plan
from fishr.data.caches.unfinished import Parts
from fishr.errors import InputError
from fishr.landscape import Frames, Scores, Surface, random_directions

XS, YS = torch.linspace(-1, 1, 5, dtype=torch.float64), torch.linspace(0, 1, 3, dtype=torch.float64)


def _grid(offset, calls=None):
    def evaluate(xs, ys):
        if calls is not None:
            calls.append((offset, xs.tolist()))
        values = offset + 10 * xs[:, None] + ys
        return Scores(torch.stack([values, -values]), torch.stack([values / 100, values / 200]))

    return evaluate


def _plan(*grids, rows=1):
    """A plane, and frames for all grids but the first."""
    nothing = torch.full((len(grids) - 1, 2, 5, 3), torch.nan)
    frames = Frames(tuple(range(len(nothing))), Scores(nothing, nothing))
    scores = Scores(torch.full((2, 5, 3), torch.nan), torch.full((2, 5, 3), torch.nan))
    directions, splits = random_directions({"w": torch.ones(2, 2)}, 0), ("training", "training")
    return Plan(Surface(directions, (XS, YS), ("a", "b"), splits, scores, ("w",), "", frames), grids, rows)


def _losses(surface):
    return torch.cat([surface.scores.losses[None], surface.frames.scores.losses])


def _expected(*offsets):
    return torch.stack([_grid(offset)(XS, YS).losses for offset in offsets])


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_all_grids_that_are_not_square(tmp_path, rows):
    calls = []
    plan = _plan(_grid(0.0, calls), _grid(100.0, calls), rows=rows)
    with Parts(tmp_path / "a.h5", "fishr-surface", "key") as parts:
        progress = list(evaluate_parts(plan, parts))
        found = gathered(plan, parts)
    assert torch.equal(_losses(found), _expected(0.0, 100.0))
    assert torch.equal(found.scores.accuracies[0], found.scores.losses[0] / 100)
    assert torch.equal(found.frames.scores.accuracies[:, 0], found.frames.scores.losses[:, 0] / 100)
    assert progress == [(i, len(calls)) for i in range(len(calls) + 1)]
    assert [x for offset, xs in calls if offset == 0.0 for x in xs] == XS.tolist()


def test_finished_parts_are_not_evaluated_again(tmp_path):
    calls = []
    plan = _plan(_grid(0.0, calls), _grid(100.0, calls), rows=2)
    with Parts(tmp_path / "a.h5", "fishr-surface", "key") as parts:
        going = evaluate_parts(plan, parts)
        for _ in range(4):
            next(going)
        going.close()
    assert len(calls) == 3
    half = _losses(gathered(plan, Parts(tmp_path / "a.h5", "fishr-surface", "key")))
    assert torch.equal(half[0], _expected(0.0)[0])
    assert half[1].isnan().all()
    with Parts(tmp_path / "a.h5", "fishr-surface", "key") as parts:
        progress = list(evaluate_parts(plan, parts))
        assert (progress[0], progress[-1]) == ((3, 6), (6, 6))
        found = gathered(plan, parts)
    assert torch.equal(_losses(found), _expected(0.0, 100.0))
    assert len(calls) == 6


def test_unevaluated_rows_are_nan_and_the_others_are_not(tmp_path):
    plan = _plan(_grid(0.0), rows=2)
    with Parts(tmp_path / "a.h5", "fishr-surface", "key") as parts:
        list(evaluate_parts(plan, parts))
        (tmp_path / "a.h5.parts" / "000001.h5").unlink()
        found = gathered(plan, parts).scores
    for part in (found.losses, found.accuracies):
        assert part.isnan().sum() == 2 * 2 * 3
        assert part[:, 2:4].isnan().all()
    assert torch.equal(found.losses[:, :2], _expected(0.0)[0, :, :2])


def test_parts_of_other_work_are_refused(tmp_path):
    plan = _plan(_grid(0.0))
    with Parts(tmp_path / "a.h5", "fishr-surface", "key") as parts:
        list(evaluate_parts(plan, parts))
    with pytest.raises(InputError, match="other settings"):
        gathered(plan, Parts(tmp_path / "a.h5", "fishr-surface", "another"))
