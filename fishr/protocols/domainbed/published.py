"""Published averages of the benchmark."""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import evolve

from fishr.protocols.domainbed.tables import AVERAGES, Cell, Row, Table

SOURCE = (
    "Ramé, Dancette, Cord, Fishr: Invariant Gradient Variances for Out-of-Distribution Generalization, ICML 2022 "
    "(arXiv 2109.02934), averages of its DomainBed tables; the protocol was domainbed-2021"
)
PUBLISHED = "published"

_DATASETS = ("ColoredMNIST", "RotatedMNIST", "VLCS", "PACS", "OfficeHome", "TerraIncognita", "DomainNet")


def _numbers(*percent: float) -> Mapping[str, float]:
    return MappingProxyType(dict(zip((*_DATASETS, AVERAGES), percent, strict=True)))


NUMBERS: Mapping[str, Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "training": {
            "ERM": _numbers(51.5, 98.0, 77.5, 85.5, 66.5, 46.1, 40.9, 66.6),
            "Fishr": _numbers(52.0, 97.8, 77.8, 85.5, 67.8, 47.4, 41.7, 67.1),
        },
        "oracle": {
            "ERM": _numbers(57.8, 97.8, 77.6, 86.7, 66.4, 53.0, 41.3, 68.7),
            "Fishr": _numbers(68.8, 97.8, 78.2, 86.9, 68.2, 53.6, 41.8, 70.8),
        },
    }
)
"""Percent, by selection, algorithm and data set; "averages" is the mean of the seven.

Source: see ``SOURCE``.
"""


def with_published(table: Table) -> Table:
    """Return a table with the published numbers below its rows, or the table itself if there are none."""
    rows = list[Row]()
    for algorithm, numbers in NUMBERS.get(table.selection, {}).items():
        if table.name == AVERAGES:
            cells = [Cell(numbers[column]) if column in numbers else None for column in table.columns]
            average = numbers[AVERAGES] if set(table.columns) == set(_DATASETS) else None
        else:
            cells = [None] * len(table.columns)
            average = numbers.get(table.name)
        if average is not None or any(cells):
            rows.append(Row(algorithm, tuple(cells), average, source=PUBLISHED, protocol="domainbed-2021"))
    return evolve(table, rows=(*table.rows, *rows))
