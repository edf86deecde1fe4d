"""The published numbers, and where they stand."""

from statistics import fmean

import pytest

from fishr.protocols.domainbed.published import NUMBERS, with_published
from fishr.protocols.domainbed.tables import Table, cell_of, row_of

SEVEN = ("ColoredMNIST", "RotatedMNIST", "VLCS", "PACS", "OfficeHome", "TerraIncognita", "DomainNet")
# Ramé et al., ICML 2022: the DomainBed averages of ERM and Fishr, as in the published tables.
TABLE = """
training ERM    51.5 98.0 77.5 85.5 66.5 46.1 40.9 66.6
training Fishr  52.0 97.8 77.8 85.5 67.8 47.4 41.7 67.1
oracle   ERM    57.8 97.8 77.6 86.7 66.4 53.0 41.3 68.7
oracle   Fishr  68.8 97.8 78.2 86.9 68.2 53.6 41.8 70.8
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize(("selection", "algorithm", "numbers"), [(s, a, list(map(float, n))) for s, a, *n in ROWS])
def test_numbers(selection, algorithm, numbers):
    table = with_published(Table("averages", selection, SEVEN, ()))
    (row,) = [row for row in table.rows if row.algorithm == algorithm]
    assert [cell.mean for cell in row.cells] == numbers[:-1]
    assert row.average == numbers[-1]
    # Each was rounded by itself: to a tenth they agree with their mean.
    assert row.average == pytest.approx(fmean(numbers[:-1]), abs=0.1)
    assert all(cell.standard_error is None and cell.trials == 0 for cell in row.cells)
    assert (row.label, row.protocol) == (f"{algorithm} (published)", "domainbed-2021")


def test_rows_come_below_ones_own():
    own = row_of("ERM", [cell_of([0.5])])
    table = with_published(Table("averages", "oracle", ("VLCS",), (own,)))
    assert table.rows[0] is own
    assert [row.label for row in table.rows] == ["ERM", "ERM (published)", "Fishr (published)"]


def test_the_average_is_of_the_seven_alone():
    for columns in (SEVEN[:6], (*SEVEN, "SVIRO")):
        rows = with_published(Table("averages", "oracle", columns, ())).rows
        assert [row.average for row in rows] == [None, None]
    rows = with_published(Table("averages", "oracle", SEVEN[::-1], ())).rows
    assert [row.average for row in rows] == [68.7, 70.8]
    assert [cell.mean for cell in rows[0].cells] == [NUMBERS["oracle"]["ERM"][name] for name in SEVEN[::-1]]


@pytest.mark.parametrize(("name", "selection"), [("SVIRO", "oracle"), ("PACS", "leave-one-out"), ("mine", "training")])
def test_where_nothing_is_published(name, selection):
    table = Table(name, selection, ("a", "b"), ())
    assert with_published(table) == table
    assert with_published(Table("averages", selection, (name,), ())).rows == ()
