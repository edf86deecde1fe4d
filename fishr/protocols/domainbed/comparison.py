"""Tables of several sweeps as one."""

from collections.abc import Mapping, Sequence

from attrs import evolve

from fishr.protocols.domainbed.cells import Cell, Row, Table, row_of
from fishr.protocols.domainbed.order import AVERAGES, by_benchmark, by_reference
from fishr.protocols.domainbed.selection import SELECTIONS


def beside(named: Mapping[str, Sequence[Table]]) -> tuple[Table, ...]:
    """The tables of several sweeps as one: the rows of each bear its name.

    Args:
        named: by the sweep's name, its tables.

    Returns:
        A table for each selection and data set that any of them has, and of averages; columns that a sweep lacks are
        empty cells.

    Example:
        >>> from fishr.protocols.domainbed.cells import cell_of
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
