"""Published averages of the benchmark, each with its source."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attrs import evolve, frozen

from fishr.protocols.domainbed.tables import AVERAGES, Cell, Row, Table

PUBLISHED = "published"
_FIVE = ("VLCS", "PACS", "OfficeHome", "TerraIncognita", "DomainNet")
_SEVEN = ("ColoredMNIST", "RotatedMNIST", *_FIVE)
_FISHR, _DIWA, _MIRO, _ERMPP = "Fishr paper", "DiWA README", "MIRO README", "ERM++ paper"
SOURCES: Mapping[str, str] = MappingProxyType(
    {
        _FISHR: (
            "Ramé, Dancette, Cord, Fishr: Invariant Gradient Variances for Out-of-Distribution Generalization, ICML "
            "2022 (arXiv 2109.02934), averages of its DomainBed tables; the protocol was domainbed-2021"
        ),
        _DIWA: "Ramé et al., DiWA, NeurIPS 2022 (arXiv 2205.09739), README of github.com/alexrame/diwa",
        _MIRO: "Cha et al., MIRO, ECCV 2022 (arXiv 2203.10789), README of github.com/kakaobrain/miro",
        _ERMPP: "Teterwak et al., ERM++ (arXiv 2304.01973)",
    }
)
"""By the words that rows name them by."""
CAUTION = (
    "published: protocols, first weights and tuning differ between these rows, and from those of your runs; they are "
    "anchors, not a ranking"
)


@frozen
class PublishedRow:
    """Published averages of a method on data sets, percent."""

    algorithm: str
    source: str  # one of ``SOURCES``
    numbers: Mapping[str, float]  # by data set
    average: float  # of exactly these data sets
    average_of_five: float | None = None  # of the data sets of images
    selection: str = "training"

    @property
    def protocol(self) -> str:
        return "domainbed-2021" if self.source == _FISHR else "its authors'"

    def average_over(self, datasets: Sequence[str]) -> float | None:
        """Return the published average of these data sets, None if there is none."""
        if set(datasets) == set(self.numbers):
            return self.average
        return self.average_of_five if set(datasets) == set(_FIVE) else None


def _of_seven(algorithm: str, selection: str, five: float | None, *percent: float) -> PublishedRow:
    return PublishedRow(algorithm, _FISHR, dict(zip(_SEVEN, percent[:-1], strict=True)), percent[-1], five, selection)


def _of_five(algorithm: str, source: str, *percent: float) -> PublishedRow:
    return PublishedRow(algorithm, source, dict(zip(_FIVE, percent[:-1], strict=True)), percent[-1])


ROWS = (
    _of_seven("ERM", "training", 63.3, 51.5, 98.0, 77.5, 85.5, 66.5, 46.1, 40.9, 66.6),
    _of_seven("Fishr", "training", 64.0, 52.0, 97.8, 77.8, 85.5, 67.8, 47.4, 41.7, 67.1),
    _of_seven("ERM", "oracle", None, 57.8, 97.8, 77.6, 86.7, 66.4, 53.0, 41.3, 68.7),
    _of_seven("Fishr", "oracle", 65.7, 68.8, 97.8, 78.2, 86.9, 68.2, 53.6, 41.8, 70.8),
    _of_five("CORAL", _DIWA, 78.8, 86.2, 68.7, 47.6, 41.5, 64.6),
    _of_five("MIRO", _MIRO, 79.0, 85.4, 70.5, 50.4, 44.3, 65.9),
    _of_five("moving average", _DIWA, 78.2, 87.5, 70.6, 50.3, 46.0, 66.5),
    _of_five("SWAD", _DIWA, 79.1, 88.1, 70.6, 50.0, 46.5, 66.9),
    _of_five("CORAL + SWAD", _ERMPP, 78.9, 88.3, 71.3, 51.0, 46.8, 67.3),
    _of_five("DiWA", _DIWA, 78.6, 89.0, 72.8, 51.9, 47.7, 68.0),
    _of_five("MIRO + SWAD", _MIRO, 79.6, 88.4, 72.4, 52.9, 47.0, 68.1),
    _of_five("ERMPlusPlus", _ERMPP, 78.0, 89.8, 74.7, 51.2, 50.8, 68.9),
    _of_five("MIRO + SWAD, RegNetY-16GF SWAG", _MIRO, 81.6, 97.5, 84.2, 65.5, 60.8, 77.9),
)


def with_published(table: Table) -> Table:
    """Return a table with the published numbers below its rows, or the table itself if there are none."""
    rows = list[Row]()
    for one in ROWS:
        if one.selection != table.selection:
            continue
        if table.name == AVERAGES:
            cells = [Cell(one.numbers[column]) if column in one.numbers else None for column in table.columns]
            average = one.average_over(table.columns)
        else:
            cells = [None] * len(table.columns)
            average = one.numbers.get(table.name)
        if average is not None or any(cells):
            source = f"{PUBLISHED}, {one.source}"
            rows.append(Row(one.algorithm, tuple(cells), average, source=source, protocol=one.protocol))
    return evolve(table, rows=(*table.rows, *rows))


def published_notes(tables: Sequence[Table]) -> list[str]:
    """Return the caution and the sources of the published rows of tables; nothing without such rows."""
    named = {row.source for table in tables for row in table.rows}
    found = [f"{short}: {source}" for short, source in SOURCES.items() if f"{PUBLISHED}, {short}" in named]
    return [CAUTION, *found] if found else []
