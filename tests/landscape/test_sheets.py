"""Grids in parts: each part once, whatever is killed in between; NaN for what is not there yet."""

import pytest
import torch

from fishr.data.caches import Parts
from fishr.errors import InputError
from fishr.landscape import Scores, evaluate_sheets, gathered

XS, YS = torch.linspace(-1, 1, 5, dtype=torch.float64), torch.linspace(0, 1, 3, dtype=torch.float64)


def _sheet(offset, calls=None):
    def evaluate(xs, ys):
        if calls is not None:
            calls.append((offset, xs.tolist()))
        values = offset + 10 * xs[:, None] + ys
        return Scores(torch.stack([values, -values]), torch.stack([values / 100, values / 200]))

    return evaluate


def _expected(*offsets):
    return torch.stack([_sheet(offset)(XS, YS).losses for offset in offsets])


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_all_sheets_on_a_grid_that_is_not_square(tmp_path, rows):
    calls = []
    with Parts(tmp_path / "a.h5", "fishr-surface", "key") as parts:
        told = list(evaluate_sheets([_sheet(0.0, calls), _sheet(100.0, calls)], XS, YS, parts, rows))
        found = gathered(parts, 2, 2, XS, YS)
    assert torch.equal(found.losses, _expected(0.0, 100.0))
    assert torch.equal(found.accuracies[:, 0], found.losses[:, 0] / 100)
    assert told == [(i, len(calls)) for i in range(len(calls) + 1)]
    assert [x for offset, xs in calls if offset == 0.0 for x in xs] == XS.tolist()


def test_what_is_there_is_not_evaluated_again(tmp_path):
    calls, sheets = [], None
    sheets = [_sheet(0.0, calls), _sheet(100.0, calls)]
    with Parts(tmp_path / "a.h5", "fishr-surface", "key") as parts:
        going = evaluate_sheets(sheets, XS, YS, parts, rows=2)
        for _ in range(4):
            next(going)
        going.close()
    assert len(calls) == 3
    half = gathered(Parts(tmp_path / "a.h5", "fishr-surface", "key"), 2, 2, XS, YS)
    assert torch.equal(half.losses[0], _expected(0.0)[0])
    assert half.losses[1].isnan().all()
    with Parts(tmp_path / "a.h5", "fishr-surface", "key") as parts:
        assert next(iter(told := list(evaluate_sheets(sheets, XS, YS, parts, rows=2)))) == (3, 6)
        assert told[-1] == (6, 6)
        found = gathered(parts, 2, 2, XS, YS)
    assert torch.equal(found.losses, _expected(0.0, 100.0))
    assert len(calls) == 6


def test_unevaluated_rows_are_nan_and_the_others_are_not(tmp_path):
    with Parts(tmp_path / "a.h5", "fishr-surface", "key") as parts:
        list(evaluate_sheets([_sheet(0.0)], XS, YS, parts, rows=2))
        (tmp_path / "a.h5.parts" / "000001.h5").unlink()
        found = gathered(parts, 1, 2, XS, YS)
    for part in (found.losses, found.accuracies):
        assert part.isnan().sum() == 2 * 2 * 3
        assert part[:, :, 2:4].isnan().all()
    assert torch.equal(found.losses[0, :, :2], _expected(0.0)[0, :, :2])


def test_parts_of_other_work_are_refused(tmp_path):
    with Parts(tmp_path / "a.h5", "fishr-surface", "key") as parts:
        list(evaluate_sheets([_sheet(0.0)], XS, YS, parts))
    with pytest.raises(InputError, match="other settings"):
        gathered(Parts(tmp_path / "a.h5", "fishr-surface", "another"), 1, 2, XS, YS)
