"""Differences of a table's methods from one of them, trial by trial."""

from collections.abc import Sequence

import numpy as np
from attrs import evolve

from fishr.errors import InputError
from fishr.protocols.domainbed.tables import AVERAGES, Cell, Row, Table

# Row of a table: its name, selection, method and source.
_Place = tuple[str, str, str, str]


def with_differences(tables: Sequence[Table], algorithm: str) -> list[Table]:
    """Return tables whose rows have the mean over trials of the difference of their average from that of a method."""
    # Methods of one trial share splits and seeds, so most of the variance between trials cancels. A trial counts if no
    # cell of either row lacks it. Of several sweeps, a row is compared within its own, or else with the only row.
    names = sorted({row.algorithm for table in tables for row in table.rows})
    if algorithm not in names:
        raise InputError(f"--over: got {algorithm}, expected one of {', '.join(names)}")
    averages = _averages_by_trial([table for table in tables if table.name != AVERAGES])
    return [_compared(table, algorithm, averages) for table in tables]


def difference_note(algorithm: str) -> str:
    """Return what the column of differences holds."""
    return (
        f"Over {algorithm}: mean over trials of the difference from the average of {algorithm} in the same trial, with "
        "its standard error (of n - 1)"
    )


def _averages_by_trial(tables: Sequence[Table]) -> dict[_Place, dict[int, float]]:
    """Return the average of every row by trial, 0 to 1; under the name of averages, that over data sets."""
    found, of_all = dict[_Place, dict[int, float]](), dict[_Place, list[dict[int, float]]]()
    for table in tables:
        for row in table.rows:
            trials = [{trial: one.test for trial, one in cell.chosen.items()} for cell in row.cells if cell]
            found[table.name, table.selection, row.algorithm, row.source] = _means(trials)
            of_all.setdefault((AVERAGES, table.selection, row.algorithm, row.source), []).append(_means(trials))
    return found | {place: _means(trials) for place, trials in of_all.items()}


def _means(values: Sequence[dict[int, float]]) -> dict[int, float]:
    shared = set.intersection(*map(set[int], values)) if values else set[int]()
    return {trial: float(np.mean([one[trial] for one in values])) for trial in sorted(shared)}


def _compared(table: Table, algorithm: str, averages: dict[_Place, dict[int, float]]) -> Table:
    references = [row for row in table.rows if row.algorithm == algorithm]

    def difference(row: Row) -> Cell | None:
        own = [one for one in references if one.source == row.source]
        reference = own[0] if own else references[0] if len(references) == 1 else None
        if row.algorithm == algorithm or reference is None:
            return None
        if row.average is None or reference.average is None:
            return Cell()
        mine, its = (averages[table.name, table.selection, one.algorithm, one.source] for one in (row, reference))
        return _difference([mine[trial] - its[trial] for trial in mine.keys() & its.keys()])

    return evolve(table, reference=algorithm, rows=tuple(evolve(row, difference=difference(row)) for row in table.rows))


def _difference(values: Sequence[float]) -> Cell:
    trials = len(values)
    if not trials:
        return Cell()
    error = float(100 * np.std(values, ddof=1) / np.sqrt(trials)) if trials > 1 else None
    return Cell(float(100 * np.mean(values)), error, trials)
