"""The figure of a benchmark: a panel a data set, a line an algorithm, a color a model selection."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fishr.plots.style import COLORS, literal, quiet, save
from fishr.protocols.domainbed.published import PUBLISHED
from fishr.protocols.domainbed.selection import SELECTIONS, TITLES
from fishr.protocols.domainbed.tables import Table

_ACROSS = 4
_DOT: Any = {"marker": "o", "markersize": 5}
_DIAMOND: Any = {"marker": "D", "markersize": 5, "markerfacecolor": "white"}


def save_benchmark_figure(averages: Sequence[Table], path: Path) -> Path:
    """Draw the average accuracies on data sets: dots with standard errors are measured, diamonds are published.

    Raises:
        RunFailed: the figure could not be written.
    """
    datasets = list(dict.fromkeys(column for table in averages for column in table.columns))
    labels = list(dict.fromkeys(row.label for table in averages for row in table.rows))
    across = min(_ACROSS, len(datasets))
    down = ceil(len(datasets) / across)
    # Names appear once a row of panels; each algorithm needs room for a dot a selection.
    names = 0.085 * max(map(len, labels))
    height = 0.3 + 0.13 * len(averages)
    size = (max(names + 2.6 * across, 6.0), (0.9 + height * len(labels)) * down + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axes, dataset in zip(grid, datasets, strict=False):
        _panel(axes, dataset, averages, labels)
    for axes in grid[len(datasets) :]:
        axes.set_visible(False)
    figure.legend(handles=_legend(averages), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return save(figure, path)


def _panel(axes: Axes, dataset: str, averages: Sequence[Table], labels: Sequence[str]) -> None:
    for index, table in enumerate(averages):
        shift = 0.6 * ((index + 0.5) / len(averages) - 0.5)
        for row in table.rows:
            cell = dict(zip(table.columns, row.cells, strict=True)).get(dataset)
            if cell is not None and cell.mean is not None:
                at, color = ([cell.mean], [labels.index(row.label) + shift]), _color(table.selection)
                marker = _DIAMOND if row.source.startswith(PUBLISHED) else _DOT
                axes.errorbar(*at, xerr=cell.standard_error, color=color, capsize=2, linewidth=1.4, **marker)
    quiet(axes, literal(dataset), "accuracy ± standard error, %", "")
    axes.set_yticks(range(len(labels)), [literal(label) for label in labels])
    # The first algorithm is on top.
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _legend(averages: Sequence[Table]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=_color(table.selection), label=TITLES[table.selection], **_DOT)
        for table in averages
        if any(cell and cell.mean is not None for row in table.rows for cell in row.cells)
    ]
    if any(row.source.startswith(PUBLISHED) for table in averages for row in table.rows):
        handles.append(Line2D([], [], color="black", linestyle="", label="published", **_DIAMOND))
    return handles


def _color(selection: str) -> str:
    return COLORS[list(SELECTIONS).index(selection)]
