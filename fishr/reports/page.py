"""A report as plain records, and its one HTML file: text, tables that sort, charts, pictures, no network."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from attrs import frozen

from fishr.extras import from_extra
from fishr.files import write_atomically

GENERATOR = '<meta name="generator" content="fishr report">'
Cell = str | float | int | None
Spec = Mapping[str, Any]


@frozen
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@frozen
class Facts:
    """Names and their values."""

    kind: ClassVar[str] = "facts"
    pairs: Mapping[str, str]


@frozen
class Listing:
    """Lines as they are written; with a summary, closed at first below it."""

    kind: ClassVar[str] = "listing"
    text: str
    summary: str = ""


@frozen
class Table:
    """A table that sorts by a click on a column's name.

    Args:
        head: Name of each column.
        rows: A cell a column; None and NaN are shown as a dash.
        formats: Format of the numbers of each column, such as ".1%"; "": as they are.
        caption: Sentence above the table.
        strong: Indices of the rows that stand out.

    Example:
        >>> Table(("domain", "accuracy"), (("photo", 0.5), ("sketch", None)), ("", ".0%")).texts[0]
        (('photo', 'photo'), (0.5, '50%'))
    """

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    formats: Sequence[str] = ()
    caption: str = ""
    strong: Sequence[int] = ()

    @property
    def texts(self) -> list[tuple[tuple[Cell, str], ...]]:
        """Each row's cells: what sorts, and what is shown."""
        formats = self.formats or [""] * len(self.head)
        return [tuple(_shown(cell, form) for cell, form in zip(row, formats, strict=True)) for row in self.rows]


@frozen
class Chart:
    """A chart that can be hovered and zoomed.

    Args:
        title: Its heading.
        spec: Vega-Lite specification without colors of its own, which the page has for light and dark.
        text: The chart in words, for those who do not see it.
        many: Draw on a canvas, which is faster for thousands of marks.
    """

    kind: ClassVar[str] = "chart"
    title: str
    spec: Spec
    text: str
    many: bool = False


@frozen
class Picture:
    """A picture as a data URL, with its title and a text in its place."""

    kind: ClassVar[str] = "picture"
    title: str
    url: str
    text: str


@frozen
class Columns:
    """Blocks in columns of equal width, one below the other on a phone; each column has a title."""

    kind: ClassVar[str] = "columns"
    columns: Sequence[tuple[str, "Sequence[Block]"]]


Block = Text | Facts | Listing | Table | Chart | Picture | Columns


@frozen
class Section:
    """A heading and blocks; charts and pictures that follow each other share a row where there is room."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The section's name in links."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


@frozen
class Page:
    """A report: a title, a line below it, sections, and a text that the file keeps of its subject."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    source: str = ""


def page_html(page: Page) -> str:
    """Return a page as HTML that needs no other file.

    Raises:
        InputError: vl-convert-python, which has the charts' scripts, is not installed.

    Example:
        >>> html = page_html(Page("run", "200 steps", [Section("Scores", [Table(("domain",), (("photo",),))])]))
        >>> '<section id="scores">' in html, '<td data-key="photo">photo</td>' in html
        (True, True)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("fishr.reports")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # No text can end the script that it is in.
    made.filters["script"] = lambda value: Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))
    return made.get_template("page.html").render(page=page, generator=Markup(GENERATOR), charts=Markup(chart_scripts()))


def _shown(cell: Cell, form: str) -> tuple[Cell, str]:
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "", "–"
    return cell, format(cell, form) if form and not isinstance(cell, str) else str(cell)


@cache
def chart_scripts() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script."""
    return from_extra("report", "vl_convert", "report").javascript_bundle().replace("</script", "<\\/script")


def write_page(page: Page, path: Path | str) -> None:
    """Write a page as one HTML file, whole or not at all.

    Raises:
        InputError: as ``page_html``.
        RunFailed: the file could not be written.
    """
    write_atomically(Path(path), page_html(page).encode())
