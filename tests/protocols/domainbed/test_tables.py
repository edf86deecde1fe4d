import math
from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishr.protocols.domainbed.records import JobKey
from fishr.protocols.domainbed.tables import Cell, by_benchmark, by_reference, cell_of, row_of


def test_cells_are_computed_in_domainbeds_order_of_operations():
    """100 · mean, 100 · std(values / √n): other orders differ in the last bit, and then in what is printed."""
    values = np.random.RandomState(0).rand(50, 3)
    differ = 0
    for trials in values.tolist():
        cell = cell_of(trials)
        assert cell.mean == 100 * np.mean(trials)
        assert cell.standard_error == 100 * np.std(np.array(trials) / np.sqrt(3))
        differ += cell.standard_error != 100 * np.std(trials) / np.sqrt(3)
    assert differ


@pytest.mark.slow
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_a_cell_is_mean_and_standard_error(accuracies):
    cell = cell_of(accuracies)
    assert cell.trials == len(accuracies)
    assert cell.mean == pytest.approx(100 * fmean(accuracies))
    assert cell.standard_error == pytest.approx(100 * pstdev(accuracies) / math.sqrt(len(accuracies)), abs=1e-9)


def test_a_cell_without_trials():
    assert cell_of([]) == Cell(None, None, 0)
    missing = (JobKey("PACS", "ERM", (0,), 0, 0),)
    assert cell_of([], missing).missing == missing


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_a_rows_average_is_of_means_not_rounded(values):
    row = row_of("ERM", [cell_of([value]) for value in values])
    assert row.average == pytest.approx(100 * fmean(values), abs=1e-9)
    assert row.worst == 100 * min(values)
    assert row_of("ERM", [*row.cells, Cell()]).average is row_of("ERM", [*row.cells, Cell()]).worst is None


def test_the_order_of_rows_and_tables():
    assert sorted(["Fishr", "CORAL", "ERM"], key=by_reference) == ["ERM", "CORAL", "Fishr"]
    names = ["averages", "zoo", "PACS", "apes", "ColoredMNIST"]
    assert sorted(names, key=by_benchmark) == ["ColoredMNIST", "PACS", "apes", "zoo", "averages"]
