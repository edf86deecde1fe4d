"""Tables, their rows and cells, and their order."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np
from attrs import field, frozen

from fishr.protocols.domainbed.datasets import BENCHMARKS
from fishr.protocols.domainbed.records import JobKey
from fishr.protocols.domainbed.selection import Chosen

AVERAGES = "averages"


@frozen
class Cell:
    """One accuracy of a table, in percent."""

    mean: float | None = None  # over trials; None: there is none
    standard_error: float | None = None  # population standard deviation / √trials
    trials: int = 0
    missing: tuple[JobKey, ...] = ()  # without records
    chosen: Mapping[int, Chosen] = field(factory=dict)  # by trial seed; empty in a table of averages


@frozen
class Row:
    """One method of a table."""

    algorithm: str
    cells: tuple[Cell | None, ...]  # one a column; None: blank
    average: float | None = None  # of the cells' means before rounding, percent; None: a cell lacks its mean
    worst: float | None = None  # least of the cells' means, percent
    source: str = ""  # of the results, where a table has several
    protocol: str = ""
    difference: Cell | None = None  # of the average from that of the table's reference, percentage points

    @property
    def label(self) -> str:
        return f"{self.algorithm} ({self.source})" if self.source else self.algorithm


@frozen
class Table:
    """A table of one selection."""

    name: str  # of the data set, or "averages"
    selection: str
    columns: tuple[str, ...]  # test environments, or data sets
    rows: tuple[Row, ...]
    lacks_pairs: bool = False  # no job has two test environments, which leave-one-out needs
    reference: str = ""  # method that rows have their difference from


def cell_of(
    accuracies: Sequence[float], missing: tuple[JobKey, ...] = (), chosen: Mapping[int, Chosen] | None = None
) -> Cell:
    """Return the mean and standard error over trials of accuracies from 0 to 1."""
    if not accuracies:
        return Cell(missing=missing)
    # In DomainBed's order of operations: the last bit decides how 12.25 is printed.
    mean = 100 * np.mean(accuracies)
    error = 100 * np.std(np.asarray(accuracies) / np.sqrt(len(accuracies)))
    return Cell(float(mean), float(error), len(accuracies), missing, chosen or {})


def row_of(algorithm: str, cells: Sequence[Cell], protocol: str = "") -> Row:
    """Return a row with its average and its worst column, which need every cell."""
    means = [cell.mean for cell in cells if cell.mean is not None]
    whole = len(means) == len(cells) > 0
    return Row(
        algorithm,
        tuple(cells),
        average=reduce(add, means) / len(means) if whole else None,
        worst=min(means) if whole else None,
        protocol=protocol,
    )


def by_reference(algorithm: str) -> tuple[bool, str]:
    """Sort key of rows: ERM, which the others are compared with, then by name."""
    return algorithm != "ERM", algorithm


def by_benchmark(table: str) -> tuple[int, str]:
    """Sort key of tables and data sets: in the benchmark's order, then the others by name, the averages last."""
    if table == AVERAGES:
        return len(BENCHMARKS) + 1, ""
    return (list(BENCHMARKS).index(table), "") if table in BENCHMARKS else (len(BENCHMARKS), table)
