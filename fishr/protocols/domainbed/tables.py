"""Tables, their rows and cells, and their order."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np
from attrs import evolve, field, frozen

from fishr.protocols.domainbed.datasets import BENCHMARKS
from fishr.protocols.domainbed.records import JobKey
from fishr.protocols.domainbed.selection import SELECTIONS, Chosen

AVERAGES = "averages"


def by_reference(algorithm: str) -> tuple[bool, str]:
    """The order of rows: ERM, which the others are compared with, then by name.

    Example:
        >>> sorted(["Fishr", "CORAL", "ERM"], key=by_reference)
        ['ERM', 'CORAL', 'Fishr']
    """
    return algorithm != "ERM", algorithm


def by_benchmark(table: str) -> tuple[int, str]:
    """The order of tables and of data sets: the benchmark's, then the others by name, the averages last.

    Example:
        >>> sorted(["averages", "zoo", "PACS", "apes", "ColoredMNIST"], key=by_benchmark)
        ['ColoredMNIST', 'PACS', 'apes', 'zoo', 'averages']
    """
    if table == AVERAGES:
        return len(BENCHMARKS) + 1, ""
    return (list(BENCHMARKS).index(table), "") if table in BENCHMARKS else (len(BENCHMARKS), table)


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


def beside(named: Mapping[str, Sequence[Table]]) -> tuple[Table, ...]:
    """The tables of several sweeps as one: the rows of each bear its name.

    Args:
        named: by the sweep's name, its tables.

    Returns:
        A table for each selection and data set that any of them has, and of averages; columns that a sweep lacks are
        empty cells.

    Example:
        >>> from fishr.protocols.domainbed.tables import cell_of
        >>> old = Table("averages", "oracle", ("PACS",), (row_of("ERM", [cell_of([0.5])]),))
        >>> new = Table("averages", "oracle", ("PACS", "VLCS"), (row_of("ERM", [cell_of([0.6]), cell_of([0.7])]),))
        >>> (table,) = beside({"old": [old], "new": [new]})
        >>> [(row.label, row.average) for row in table.rows]
        [('ERM (old)', None), ('ERM (new)', 65.0)]
    """
    matching = dict[tuple[str, str], list[tuple[str, Table]]]()
    for source, tables in named.items():
        for table in tables:
            matching.setdefault((table.selection, table.name), []).append((source, table))
    made = list[Table]()
    order = list(SELECTIONS)
    for selection, name in sorted(matching, key=lambda one: (order.index(one[0]), by_benchmark(one[1]))):
        parts = matching[selection, name]
        columns = tuple(dict.fromkeys(column for _, table in parts for column in table.columns))
        if name == AVERAGES:
            columns = tuple(sorted(columns, key=by_benchmark))
        rows = [_aligned(row, table.columns, columns, source) for source, table in parts for row in table.rows]
        # A stable sort: the rows of an algorithm stay in the order of the sweeps.
        rows.sort(key=lambda row: by_reference(row.algorithm))
        lacks_pairs = all(table.lacks_pairs for _, table in parts)
        made.append(Table(name, selection, columns, tuple(rows), lacks_pairs))
    return tuple(made)


def _aligned(row: Row, columns: Sequence[str], wanted: Sequence[str], source: str) -> Row:
    cells = dict(zip(columns, row.cells, strict=True))
    return evolve(
        row_of(row.algorithm, [cells.get(column) or Cell() for column in wanted], row.protocol), source=source
    )
