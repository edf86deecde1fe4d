"""A table as plain values: rendered for people, or dumped as JSON with every number that was measured."""

from typing import Any

import attrs
from attrs import frozen
from tabulate import tabulate


@frozen
class Spread:
    """A measured number over rounds, in the unit of its column.

    Args:
        median: over rounds.
        low: the lower quartile.
        high: the upper quartile.
        digits: behind the point, when printed.
    """

    median: float
    low: float
    high: float
    digits: int = 2

    def __str__(self) -> str:
        return f"{self.median:,.{self.digits}f} [{self.low:,.{self.digits}f}, {self.high:,.{self.digits}f}]"


@frozen
class Number:
    """A number that is printed with so many digits behind the point."""

    value: float
    digits: int = 2

    def __str__(self) -> str:
        return f"{self.value:,.{self.digits}f}"


@frozen
class Verdict:
    """A target, and whether a value meets it: at least it, or at most."""

    value: float
    target: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.target:g}: {'met' if self.met else 'MISSED'}"


Cell = str | int | Number | Spread | Verdict | None


@frozen
class Table:
    """What one benchmark measured.

    Args:
        title: what, and of what size.
        headers: of the columns, with their units.
        rows: a cell for each column; None: nothing to say.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __str__(self) -> str:
        cells = [["" if cell is None else str(cell) for cell in row] for row in self.rows]
        return f"{self.title}\n{tabulate(cells, self.headers, disable_numparse=True)}"

    def plain(self) -> dict[str, Any]:
        """As JSON has it: each row by its headers."""
        rows = [dict(zip(self.headers, map(_plain, row), strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows}


def _plain(cell: Cell) -> Any:
    match cell:
        case Number():
            return cell.value
        case Spread():
            return {"median": cell.median, "low": cell.low, "high": cell.high}
        case Verdict():
            return {**attrs.asdict(cell), "met": cell.met}
        case _:
            return cell
