"""What tables are made of: cells, rows, tables."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np
from attrs import field, frozen

from fishr.protocols.domainbed.records import JobKey
from fishr.protocols.domainbed.selection import Chosen


@frozen
class Cell:
    """One accuracy of a table.

    Args:
        mean: over trials, percent; None: there is none.
        standard_error: of the mean, percent: population standard deviation / √trials; None where it is not known.
        trials: how many.
        missing: jobs it should rest on that have no records.
        chosen: by trial seed, what the selection chose; empty in a table of averages.
    """

    mean: float | None = None
    standard_error: float | None = None
    trials: int = 0
    missing: tuple[JobKey, ...] = ()
    chosen: Mapping[int, Chosen] = field(factory=dict)


@frozen
class Row:
    """One algorithm of a table.

    Args:
        algorithm: its name.
        cells: a column each; None: blank.
        average: of the cells' means, not rounded before, percent; None: a cell lacks.
        worst: the least of the cells' means, percent; None likewise.
        source: whose results they are, where a table has several.
        protocol: what the jobs were run by.
    """

    algorithm: str
    cells: tuple[Cell | None, ...]
    average: float | None = None
    worst: float | None = None
    source: str = ""
    protocol: str = ""

    @property
    def label(self) -> str:
        """The algorithm, with the source if there is one."""
        return f"{self.algorithm} ({self.source})" if self.source else self.algorithm


@frozen
class Table:
    """A table of one selection.

    Args:
        name: of the data set, or "averages".
        selection: one of ``SELECTIONS``.
        columns: names of the test environments, or of the data sets.
        rows: an algorithm each.
        lacks_pairs: leave-one-domain-out of a data set of which no job has two test environments.
    """

    name: str
    selection: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    lacks_pairs: bool = False


def cell_of(
    accuracies: Sequence[float], missing: tuple[JobKey, ...] = (), chosen: Mapping[int, Chosen] | None = None
) -> Cell:
    """Mean and standard error over trials.

    Args:
        accuracies: a trial each, 0 to 1.
        missing: jobs that have no records.
        chosen: by trial seed.

    Example:
        >>> cell = cell_of([0.5, 0.7])
        >>> f"{cell.mean:.1f} +/- {cell.standard_error:.1f}", cell.trials
        ('60.0 +/- 7.1', 2)

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """
    if not accuracies:
        return Cell(missing=missing)
    # In the order in which DomainBed does it: the last bit decides how 12.25 is printed.
    mean = 100 * np.mean(accuracies)
    error = 100 * np.std(np.asarray(accuracies) / np.sqrt(len(accuracies)))
    return Cell(float(mean), float(error), len(accuracies), missing, chosen or {})


def row_of(algorithm: str, cells: Sequence[Cell], protocol: str = "") -> Row:
    """A row with its average and its worst column, which need every cell.

    Example:
        >>> row = row_of("ERM", [cell_of([0.5]), cell_of([0.8])])
        >>> row.average, row.worst, row_of("ERM", [cell_of([0.5]), Cell()]).average
        (65.0, 50.0, None)
    """
    means = [cell.mean for cell in cells if cell.mean is not None]
    whole = len(means) == len(cells) > 0
    return Row(
        algorithm,
        tuple(cells),
        average=reduce(add, means) / len(means) if whole else None,
        worst=min(means) if whole else None,
        protocol=protocol,
    )
