"""The published numbers, their sources, and where they stand."""

from statistics import fmean

import pytest

from fishr.protocols.domainbed.published import CAUTION, SOURCES, published_notes, with_published
from fishr.protocols.domainbed.tables import Table, cell_of, row_of

FIVE = ("VLCS", "PACS", "OfficeHome", "TerraIncognita", "DomainNet")
SEVEN = ("ColoredMNIST", "RotatedMNIST", *FIVE)
# Ramé et al., ICML 2022: the DomainBed averages of ERM and Fishr, as in the published tables.
PAPER = """
training ERM    51.5 98.0 77.5 85.5 66.5 46.1 40.9 66.6
training Fishr  52.0 97.8 77.8 85.5 67.8 47.4 41.7 67.1
oracle   ERM    57.8 97.8 77.6 86.7 66.4 53.0 41.3 68.7
oracle   Fishr  68.8 97.8 78.2 86.9 68.2 53.6 41.8 70.8
"""
# The five data sets of images, training-domain validation; sources: DiWA's and MIRO's READMEs, the paper on ERM++.
OTHERS = """
CORAL                          | DiWA README  | 78.8 86.2 68.7 47.6 41.5 64.6
MIRO                           | MIRO README  | 79.0 85.4 70.5 50.4 44.3 65.9
moving average                 | DiWA README  | 78.2 87.5 70.6 50.3 46.0 66.5
SWAD                           | DiWA README  | 79.1 88.1 70.6 50.0 46.5 66.9
CORAL + SWAD                   | ERM++ paper  | 78.9 88.3 71.3 51.0 46.8 67.3
DiWA                           | DiWA README  | 78.6 89.0 72.8 51.9 47.7 68.0
MIRO + SWAD                    | MIRO README  | 79.6 88.4 72.4 52.9 47.0 68.1
ERMPlusPlus                    | ERM++ paper  | 78.0 89.8 74.7 51.2 50.8 68.9
MIRO + SWAD, RegNetY-16GF SWAG | MIRO README  | 81.6 97.5 84.2 65.5 60.8 77.9
"""
ROWS = [line.split() for line in PAPER.strip().splitlines()]


def rows_of(name, selection, columns):
    return with_published(Table(name, selection, columns, ())).rows


@pytest.mark.parametrize(("selection", "algorithm", "numbers"), [(s, a, list(map(float, n))) for s, a, *n in ROWS])
def test_numbers_of_the_fishr_paper(selection, algorithm, numbers):
    (row,) = [row for row in rows_of("averages", selection, SEVEN) if row.algorithm == algorithm]
    assert [cell.mean for cell in row.cells] == numbers[:-1]
    assert row.average == numbers[-1]
    # Each was rounded by itself: to a tenth they agree with their mean.
    assert row.average == pytest.approx(fmean(numbers[:-1]), abs=0.1)
    assert all(cell.standard_error is None and cell.trials == 0 for cell in row.cells)
    assert (row.label, row.protocol) == (f"{algorithm} (published, Fishr paper)", "domainbed-2021")


@pytest.mark.parametrize("line", OTHERS.strip().splitlines())
def test_numbers_of_other_sources(line):
    algorithm, source, text = (part.strip() for part in line.split("|"))
    numbers = list(map(float, text.split()))
    (row,) = [row for row in rows_of("averages", "training", FIVE) if row.algorithm == algorithm]
    assert [cell.mean for cell in row.cells] == numbers[:-1]
    assert row.average == numbers[-1] == pytest.approx(fmean(numbers[:-1]), abs=0.1)
    assert (row.source, row.protocol) == (f"published, {source}", "its authors'")
    (seven,) = [row for row in rows_of("averages", "training", SEVEN) if row.algorithm == algorithm]
    assert ([cell and cell.mean for cell in seven.cells], seven.average) == ([None, None, *numbers[:-1]], None)
    (pacs,) = [row for row in rows_of("PACS", "training", ("A", "C", "P", "S")) if row.algorithm == algorithm]
    assert (pacs.cells, pacs.average) == ((None,) * 4, numbers[1])


def test_rows_come_below_ones_own():
    own = row_of("ERM", [cell_of([0.5])])
    table = with_published(Table("averages", "oracle", ("VLCS",), (own,)))
    assert table.rows[0] is own
    labels = ["ERM", "ERM (published, Fishr paper)", "Fishr (published, Fishr paper)"]
    assert [row.label for row in table.rows] == labels


def test_averages_are_of_seven_or_of_five_data_sets():
    for columns in (SEVEN[:6], (*SEVEN, "SVIRO"), FIVE[:4]):
        assert [row.average for row in rows_of("averages", "oracle", columns)] == [None, None]
    rows = rows_of("averages", "oracle", SEVEN[::-1])
    assert [row.average for row in rows] == [68.7, 70.8]
    assert [cell.mean for cell in rows[0].cells] == list(map(float, ROWS[2][2:-1][::-1]))
    assert [row.average for row in rows_of("averages", "training", FIVE[::-1])[:2]] == [63.3, 64.0]
    assert [row.average for row in rows_of("averages", "oracle", FIVE)] == [None, 65.7]


def test_notes_have_the_sources_of_the_rows_and_a_caution():
    assert published_notes([with_published(Table("ColoredMNIST", "oracle", ("a",), ()))]) == [
        CAUTION,
        f"Fishr paper: {SOURCES['Fishr paper']}",
    ]
    notes = published_notes([with_published(Table("averages", "training", FIVE, ()))])
    assert [note.partition(":")[0] for note in notes] == ["published", *SOURCES]
    assert published_notes([Table("PACS", "training", ("a",), ())]) == []


@pytest.mark.parametrize(("name", "selection"), [("SVIRO", "oracle"), ("PACS", "leave-one-out"), ("mine", "training")])
def test_where_nothing_is_published(name, selection):
    table = Table(name, selection, ("a", "b"), ())
    assert with_published(table) == table
    assert with_published(Table("averages", selection, (name,), ())).rows == ()
