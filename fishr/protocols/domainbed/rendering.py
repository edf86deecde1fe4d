"""Tables as text, Markdown, LaTeX, CSV and JSON."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from types import MappingProxyType
from typing import Any

import attrs
from tabulate import tabulate

from fishr.files import json_text
from fishr.protocols.domainbed.records import JobKey
from fishr.protocols.domainbed.selection import TITLES
from fishr.protocols.domainbed.tables import AVERAGES, Cell, Row, Table

_AVERAGE, _WORST = "Avg", "Worst"


def render(tables: Sequence[Table], form: str = "text", worst: bool = False, notes: Sequence[str] = ()) -> str:
    """Return tables as "text", "markdown", "latex" (one decimal), "csv" or "json" (all digits)."""
    return FORMS[form](tables, worst, notes)


def cell_text(cell: Cell | None, plus_minus: str = "+/-", sign: str = "-") -> str:
    """Return a cell as DomainBed prints it: percent, one decimal; X without a trial; sign "+" shows every sign."""
    if cell is None:
        return ""
    if cell.mean is None:
        return "X"
    error = "" if cell.standard_error is None else f" {plus_minus} {cell.standard_error:.1f}"
    return f"{cell.mean:{sign}.1f}{error}"


def gap_lines(tables: Sequence[Table], lines: int = 20) -> list[str]:
    """Return the jobs that cells lack, a line a cell, shared by selections, and at most so many lines."""
    gaps = dict[tuple[str, str, str, tuple[JobKey, ...]], list[str]]()
    for table in tables:
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                if cell is not None and cell.missing:
                    gaps.setdefault((table.name, row.label, column, cell.missing), []).append(table.selection)
    found = [
        f"{name}, {label}, {column} ({', '.join(selections)}): {len(missing)} job{'s' * (len(missing) > 1)} missing: "
        + shortened(missing)
        for (name, label, column, missing), selections in gaps.items()
    ]
    unpaired = [table.name for table in tables if table.lacks_pairs]
    if unpaired:
        found.append(
            f"leave-one-out: no job of {', '.join(unpaired)} has two test environments; plan single_and_pairs for it"
        )
    return found if len(found) <= lines else [*found[:lines], f"and {len(found) - lines} more cells"]


def shortened(keys: Sequence[JobKey], most: int = 3) -> str:
    """Return the first jobs, and the number of the others."""
    more = [f"and {len(keys) - most} more"] if len(keys) > most else []
    return "; ".join([*map(str, keys[:most]), *more])


def _text(tables: Sequence[Table], worst: bool, notes: Sequence[str]) -> str:
    blocks = [f"{_title(table)}\n\n{_tabulated(_texts(table, worst, '+/-', str), 'simple')}" for table in tables]
    return "\n\n\n".join([*blocks, "\n".join(notes)] if notes else blocks)


def _markdown(tables: Sequence[Table], worst: bool, notes: Sequence[str]) -> str:
    blocks = [
        f"### {_markdown_name(_title(table))}\n\n{_tabulated(_texts(table, worst, '±', _markdown_name), 'github')}"
        for table in tables
    ]
    return "\n\n".join([*blocks, *notes])


def _tabulated(texts: list[list[str]], form: str) -> str:
    return tabulate(texts[1:], texts[0], tablefmt=form, disable_numparse=True)


def _latex(tables: Sequence[Table], worst: bool, notes: Sequence[str]) -> str:
    blocks = list[str]()
    for table in tables:
        head, *rows = (" & ".join(line) + r" \\" for line in _texts(table, worst, r"$\pm$", _latex_name))
        begin = rf"\begin{{tabular}}{{l{'c' * head.count(' & ')}}}"
        lines = [f"% {_title(table)}", begin, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, "\n".join(f"% {note}" for note in notes)] if notes else blocks)


def _csv(tables: Sequence[Table], worst: bool, notes: Sequence[str]) -> str:
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("table", "selection", "algorithm", "source", "protocol", "column")
    writer.writerow((*names, "mean", "standard_error", "trials", "missing"))
    for table in tables:
        for row in table.rows:
            named = (table.name, table.selection, row.algorithm, row.source, row.protocol)
            for column, cell in zip(table.columns, row.cells, strict=True):
                if cell is not None:
                    numbers = (cell.mean, cell.standard_error, cell.trials, len(cell.missing))
                    writer.writerow((*named, column, *numbers))
            for column, value in _summaries(table, row, worst):
                writer.writerow((*named, column, value, None, None, None))
            if (difference := row.difference) is not None:
                writer.writerow(
                    (*named, _over(table), difference.mean, difference.standard_error, difference.trials, None)
                )
    return out.getvalue().rstrip("\n")


def _json(tables: Sequence[Table], worst: bool, notes: Sequence[str]) -> str:
    def plain(_: object, one: "attrs.Attribute[Any] | None", value: Any) -> Any:
        return [str(key) for key in value] if one is not None and one.name == "missing" else value

    shown = attrs.filters.exclude("lacks_pairs")
    objects = [attrs.asdict(table, filter=shown, value_serializer=plain) for table in tables]
    return json_text({"tables": objects, "notes": notes})


Form = Callable[[Sequence[Table], bool, Sequence[str]], str]
FORMS: Mapping[str, Form] = MappingProxyType(
    {"text": _text, "markdown": _markdown, "latex": _latex, "csv": _csv, "json": _json}
)


def _title(table: Table) -> str:
    return f"{'Averages' if table.name == AVERAGES else table.name}, {TITLES[table.selection]}"


def _over(table: Table) -> str:
    return f"Over {table.reference}"


def _summaries(table: Table, row: Row, worst: bool) -> list[tuple[str, float | None]]:
    # The worst data set of a table of averages would say nothing.
    least = [(_WORST, row.worst)] if worst and table.name != AVERAGES else []
    return [(_AVERAGE, row.average), *least]


def _texts(table: Table, worst: bool, plus_minus: str, escape: Callable[[str], str]) -> list[list[str]]:
    """Return the head and the rows of a table as texts; names are escaped."""
    extra = [_AVERAGE, _WORST] if worst and table.name != AVERAGES else [_AVERAGE]
    extra += [escape(_over(table))] if table.reference else []
    rows = [
        [
            escape(row.label),
            *(cell_text(cell, plus_minus) for cell in row.cells),
            *(_summary_text(row, value) for _, value in _summaries(table, row, worst)),
            *([cell_text(row.difference, plus_minus, sign="+")] if table.reference else []),
        ]
        for row in table.rows
    ]
    return [["Algorithm", *map(escape, table.columns), *extra], *rows]


def _markdown_name(name: str) -> str:
    # An underscore between letters is one already.
    return re.sub(r"[\\`*~$&<>|\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", name)


def _latex_name(name: str) -> str:
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    named |= {"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"}
    # After the end of a row, these two would belong to it.
    named |= {"[": "{[}", "*": "{*}"}
    return "".join(named.get(letter, rf"\{letter}" if letter in "&%$#_{}" else letter) for letter in name)


def _summary_text(row: Row, value: float | None) -> str:
    lacking = any(cell is not None and cell.mean is None for cell in row.cells)
    return cell_text(Cell(value) if value is not None or lacking else None)
