"""The figure of a sweep: averages and test domains in panels, a line an algorithm, a color a model selection."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fishr.plots.style import COLORS, legend, literal, quiet, save
from fishr.protocols.domainbed.published import PUBLISHED
from fishr.protocols.domainbed.selection import SELECTIONS, TITLES
from fishr.protocols.domainbed.tables import AVERAGES, Row, Table

_ACROSS = 7
_LONGEST = 30  # letters of a name on one line
_DOT: Any = {"marker": "o", "markersize": 5}
_DIAMOND: Any = {"marker": "D", "markersize": 5, "markerfacecolor": "white"}


@frozen
class _Panel:
    """One column of the tables of all selections."""

    title: str
    tables: Sequence[Table]
    column: str

    @property
    def cells(self) -> list[tuple[Table, Row, Any]]:
        """Return the cells with numbers."""
        every = [
            (t, row, dict(zip(t.columns, row.cells, strict=True)).get(self.column))
            for t in self.tables
            for row in t.rows
        ]
        return [(table, row, cell) for table, row, cell in every if cell is not None and cell.mean is not None]


def save_benchmark_figure(tables: Sequence[Table], path: Path) -> Path:
    """Draw accuracies: dots with standard errors are measured, diamonds are published.

    Panels: the average over the test domains of each data set, and below them a row for each data set with a panel for
    each test domain. Selections and algorithms without any number are named
    below.

    Args:
        tables: of data sets and of averages, of all selections.

    Raises:
        RunFailed: the figure could not be written.
    """
    rows = _rows_of_panels(tables)
    every = list(dict.fromkeys(row.label for table in tables for row in table.rows))
    shown = [{row.label for panel in panels for _, row, _ in panel.cells} for panels in rows]
    labels = [[label for label in every if label in found] for found in shown]
    # Each algorithm needs room for a dot a selection.
    heights = [0.9 + (0.26 + 0.1 * len({t.selection for t in tables})) * max(1, len(found)) for found in labels]
    names = 0.085 * min(_LONGEST, max(map(len, every)))
    width = max(names + 2.1 * max(map(len, rows)), 7.0)
    figure = Figure(figsize=(width, sum(heights) + 1.2), layout="constrained")
    grid = figure.add_gridspec(len(rows), height_ratios=heights)
    for index, (panels, found) in enumerate(zip(rows, labels, strict=True)):
        places = grid[index].subgridspec(1, len(panels))
        for column, panel in enumerate(panels):
            axes = figure.add_subplot(places[column])
            _draw(axes, panel, found)
            axes.tick_params(labelleft=column == 0)
    legend(figure, title="\n".join(fill(note, int(13 * width)) for note in _notes(rows, tables, every)))
    return save(figure, path)


def _notes(rows: Sequence[Sequence[_Panel]], tables: Sequence[Table], labels: Sequence[str]) -> list[str]:
    """Return what bars are, and which selections and algorithms have no numbers."""
    cells = [cell for panels in rows for panel in panels for cell in panel.cells]
    measured = {table.selection for table, row, _ in cells if not row.source.startswith(PUBLISHED)}
    absent = [literal(label) for label in labels if label not in {row.label for _, row, _ in cells}]
    lacking = {table.selection: table.lacks_pairs for table in tables if table.name != AVERAGES}
    empty = [
        f"{TITLES[selection]}: {'no job has two test environments' if lacks_pairs else 'no number yet'}"
        for selection, lacks_pairs in lacking.items()
        if selection not in measured
    ]
    return ["bars: standard error over trials", *empty] + ([f"no number yet: {', '.join(absent)}"] if absent else [])


def _rows_of_panels(tables: Sequence[Table]) -> list[list[_Panel]]:
    averages = [table for table in tables if table.name == AVERAGES]
    datasets = list(dict.fromkeys(column for table in averages for column in table.columns))
    first = [_Panel(f"{literal(name)}, average", averages, name) for name in datasets]
    rest = list[list[_Panel]]()
    for dataset in datasets:
        found = [table for table in tables if table.name == dataset]
        columns = dict.fromkeys(column for table in found for column in table.columns)
        rest.append([_Panel(f"{literal(dataset)}, {literal(column)}", found, column) for column in columns])
    published = any(row.source.startswith(PUBLISHED) for table in averages for row in table.rows)
    rows = [first + rest[0]] if len(rest) == 1 and not published else [first, *rest]
    return [row[at : at + _ACROSS] for row in rows for at in range(0, len(row), _ACROSS)]


def _draw(axes: Axes, panel: _Panel, labels: Sequence[str]) -> None:
    selections = list(dict.fromkeys(table.selection for table in panel.tables))
    for table, row, cell in panel.cells:
        shift = 0.6 * ((selections.index(table.selection) + 0.5) / len(selections) - 0.5)
        at, color = ([cell.mean], [labels.index(row.label) + shift]), COLORS[list(SELECTIONS).index(table.selection)]
        published = row.source.startswith(PUBLISHED)
        label = TITLES[table.selection] + (", published" if published else "")
        axes.errorbar(
            *at,
            xerr=cell.standard_error,
            color=color,
            capsize=2,
            linewidth=1.4,
            label=label,
            linestyle="none",
            **(_DIAMOND if published else _DOT),
        )
    quiet(axes, panel.title, "accuracy, %", "")
    axes.title.set_fontsize(10)
    axes.set_yticks(
        range(len(labels)), [fill(literal(label.replace(f"{PUBLISHED}, ", "")), _LONGEST) for label in labels]
    )
    # The first algorithm is on top.
    axes.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4))
