"""Two reports side by side; two runs share tables and charts of scores, curves, statistics and settings."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from attrs import evolve

from fishr.analysis import headlines, load_analysis, load_history, ratio
from fishr.reports.analysis_page import history_section
from fishr.reports.data_section import RunData
from fishr.reports.learning_curves import curve_section
from fishr.reports.page import Block, Cell, Columns, Facts, Page, Section, Table, Text
from fishr.reports.run_page import fact_of_worst, run_page
from fishr.reports.run_record import RunRecord, read_run
from fishr.training.experiment import Experiment

Run = tuple[Path, Experiment, RunData | None]


def side_by_side(first: Page, second: Page) -> Page:
    """Return a page whose sections have those of two pages in two columns, or once where they are equal.

    Args:
        first: The page on the left, or above on a phone.
        second: The other page.

    Example:
        >>> one, two = (Page(name, "", [Section("Result", [Text(name)])]) for name in ("erm", "fishr"))
        >>> side_by_side(one, two).title
        'erm and fishr'
    """
    one, two = ({section.title: section.blocks for section in page.sections} for page in (first, second))
    sections = list[Section]()
    for title in dict.fromkeys([*one, *two]):
        columns = [(page.title, found[title]) for page, found in ((first, one), (second, two)) if title in found]
        # Such as the same data.
        shown = one[title] if one.get(title) == two.get(title) else [Columns(columns)]
        sections.append(Section(title, shown))
    return Page(f"{first.title} and {second.title}", f"{first.subtitle}; {second.subtitle}", sections)


def comparison_page(first: Run, second: Run, plugins: Sequence[str] = ()) -> Page:
    """Return the page of two runs: what both have in common tables and charts, the rest in two columns.

    Args:
        first: Folder and experiment of a run, and its data and results as for ``run_page``.
        second: Likewise.
        plugins: Modules that their configurations name.

    Raises:
        InputError: Records of a run are damaged.
    """
    runs = [first, second]
    names = _names([folder for folder, _, _ in runs])
    records = [evolve(read_run(folder, made), name=name) for name, (folder, made, _) in zip(names, runs, strict=True)]
    histories = [
        evolve(history, name=record.name) for record in records if (history := load_history(record.folder)) is not None
    ]
    together = [_results(records), curve_section(records), _settings(records)]
    together += [history_section(histories)] if histories else []
    together += _headlines(records)
    pages = [evolve(run_page(*run, plugins), title=name) for name, run in zip(names, runs, strict=True)]
    both = side_by_side(pages[0], pages[1])
    shown = {section.title for section in together} | {"Settings"}
    rest = [section for section in both.sections if section.title not in shown]
    return evolve(both, sections=[section for section in [*together, *rest] if section.blocks])


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, or, where they are the same, their paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [os.fspath(folder) for folder in folders]


def _results(records: Sequence[RunRecord]) -> Section:
    scores = [{(score.title, score.split): score for score in record.scores} for record in records]
    one, two = scores
    rows = list[tuple[Cell, ...]]()
    for title, split in dict.fromkeys([*one, *two]):
        pair = [found.get((title, split)) for found in scores]
        accuracies = [None if score is None else score.accuracy for score in pair]
        apart = None if None in accuracies else 100 * (cast(float, accuracies[1]) - cast(float, accuracies[0]))
        rows.append((title, *accuracies, apart, *(None if score is None else score.loss for score in pair), split))
    shares, losses = ([f"{what}, {record.name}" for record in records] for what in (records[0].metric, "loss"))
    head = ("domain", *shares, "second − first", *losses, "split")
    table = Table(head, rows, ("", ".1%", ".1%", "+.1f", ".4f", ".4f", ""), "The difference is in percentage points.")
    worst = {f"worst domain, {record.name}": fact_of_worst(record.scores) for record in records if record.scores}
    return Section("Result", [Facts(worst), table] if rows else [Text("Neither run has evaluated its weights.")])


def _settings(records: Sequence[RunRecord]) -> Section:
    one, two = (dict(_leaves(tomllib.loads(record.text))) for record in records)
    differing = [name for name in dict.fromkeys([*one, *two]) if one.get(name) != two.get(name)]
    rows = [(name, one.get(name), two.get(name)) for name in differing]
    head = ("setting", *(record.name for record in records))
    equal = "All settings are equal."
    return Section("Settings that differ", [Table(head, rows) if rows else Text(equal)])


def _leaves(table: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    found = list[tuple[str, str]]()
    for name, value in table.items():
        found += _leaves(value, f"{above}{name}.") if isinstance(value, dict) else [(f"{above}{name}", str(value))]
    return found


def _headlines(records: Sequence[RunRecord]) -> list[Section]:
    paths = [record.folder / "analysis.h5" for record in records]
    if not all(path.is_file() for path in paths):
        return []
    one, two = (headlines(load_analysis(path)) for path in paths)
    rows = [(h.title, h.value, two[n].value, ratio(h, two[n]), h.unit) for n, h in one.items() if n in two]
    head = ("headline, training domains", *(record.name for record in records), "first / second", "unit")
    blocks: list[Block] = [Table(head, rows, ("", ".4g", ".4g", ".3g", ""))]
    return [Section("Headlines", blocks)]
