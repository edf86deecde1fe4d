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
    """One accuracy of a table.

    Args:
        mean: Over trials, percent; None: there is none.
        standard_error: Of the mean, percent: population standard deviation / √trials; None: unknown.
        trials: Number of trials.
        missing: Jobs that it should rest on and that have no records.
        chosen: By trial seed, the choice of the selection; empty in a table of averages.
    """

    mean: float | None = None
    standard_error: float | None = None
    trials: int = 0
    missing: tuple[JobKey, ...] = ()
    chosen: Mapping[int, Chosen] = field(factory=dict)


@frozen
class Row:
    """One method of a table.

    Args:
        algorithm: Its name.
        cells: One a column; None: blank.
        average: Mean of the cells' means before rounding, percent; None: a cell lacks its mean.
        worst: Least of the cells' means, percent; None likewise.
        source: Origin of the results, where a table has several.
        protocol: Protocol of the jobs.
    """

    algorithm: str
    cells: tuple[Cell | None, ...]
    average: float | None = None
    worst: float | None = None
    source: str = ""
    protocol: str = ""

    @property
    def label(self) -> str:
        return f"{self.algorithm} ({self.source})" if self.source else self.algorithm


@frozen
class Table:
    """A table of one selection.

    Args:
        name: Name of the data set, or "averages".
        selection: One of ``SELECTIONS``.
        columns: Names of the test environments, or of the data sets.
        rows: One a method.
        lacks_pairs: Whether leave-one-domain-out finds no job with two test environments.
    """

    name: str
    selection: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    lacks_pairs: bool = False


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
