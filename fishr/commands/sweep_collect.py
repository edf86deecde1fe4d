"""``fishr sweep collect``."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fishr.commands.progress import parts_bar
from fishr.commands.shared import PATH, about, choice_option, each_once
from fishr.errors import InputError
from fishr.files import present
from fishr.paths import check_writable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fishr.protocols.domainbed.records import JobKey, Records
    from fishr.protocols.domainbed.tables import Table


@click.command(**about("Make the tables of a sweep.", "sweep collect runs/sweep --selection training --published"))
@click.argument("folders", type=PATH, metavar="FOLDER...", nargs=-1, required=True)
@choice_option(
    "--selection", words=["all", "training", "leave-one-out", "oracle"], help="Selection of hyper-parameters and steps."
)
@choice_option(
    "--as",
    "form",
    words=["text", "markdown", "latex", "csv", "json"],
    help="Format of the tables; csv and json have all digits.",
)
@click.option("--out", type=PATH, help="New file of the tables (default: standard output).")
@click.option("--figure", type=PATH, metavar="FILE.png", help="New file of a figure.")
@click.option("--published", is_flag=True, help="Add published averages, with their sources.")
@click.option("--worst", is_flag=True, help="Add the worst environment's accuracy beside the average.")
@click.option("--over", metavar="METHOD", help="Add differences from this method's average, with standard errors.")
def collect(
    folders: tuple[Path, ...],
    selection: str,
    form: str,
    out: Path | None,
    figure: Path | None,
    published: bool,
    worst: bool,
    over: str | None,
) -> None:
    """Make DomainBed's tables of a sweep, which may still be running, with its selection of hyper-parameters.

    FOLDER is a sweep folder of fishr or of DomainBed; the rows of several folders are in one table. Runs with different
    settings in one folder are refused. Missing jobs are listed on standard error.
    """
    _check_new(out, figure)
    from fishr.files import write_atomically
    from fishr.protocols.domainbed.differences import difference_note, with_differences
    from fishr.protocols.domainbed.published import published_notes, with_published
    from fishr.protocols.domainbed.records import read_records
    from fishr.protocols.domainbed.rendering import gap_lines, render, shortened
    from fishr.protocols.domainbed.selection import SELECTIONS
    from fishr.protocols.domainbed.tables import AVERAGES
    from fishr.sweeps.folder import is_sweep, planned_keys

    named = dict(zip(_names(folders), folders, strict=True))
    with parts_bar("job", "interrupted") as progress:
        sweeps = {name: read_records(folder, progress=partial(progress, name)) for name, folder in named.items()}
    # A folder of DomainBed has no plan.
    planned = {name: planned_keys(folder) if is_sweep(folder) else None for name, folder in named.items()}
    tables = _tables(sweeps, planned, list(SELECTIONS) if selection == "all" else [selection])
    notes = [f"{name}: protocol {read.protocol}, {len(read.keys)} jobs" for name, read in sweeps.items()]
    if over is not None:
        tables = with_differences(tables, over)
        notes.append(difference_note(over))
    gaps = gap_lines([table for table in tables if table.name != AVERAGES])
    if published:
        tables = [with_published(table) for table in tables]
        notes += published_notes(tables)
    text = render(tables, form, worst, notes)
    if out is not None:
        write_atomically(out, f"{text}\n".encode())
        click.echo(f"tables: {out}")
    else:
        click.echo(text)
    if figure is not None:
        from fishr.plots.benchmark import save_benchmark_figure

        save_benchmark_figure(tables, figure)
        click.echo(f"figure: {figure}", err=out is None)
    for name, read in sweeps.items():
        if rest := read.unfinished:
            click.echo(f"{name}: {len(rest)} unfinished, counted as far as they got: {shortened(rest)}", err=True)
    for line in gaps:
        click.echo(line, err=True)


def _check_new(out: Path | None, figure: Path | None) -> None:
    for option, path in (("--out", out), ("--figure", figure)):
        if path is not None and present(path):
            raise InputError(f"{option}: {path} exists already; choose another name, or move it away")
        if path is not None and not path.parent.is_dir():
            raise InputError(f"{option}: {path.parent} is no folder; make it first")
        if path is not None:
            check_writable(path)
    if figure is not None and figure.suffix != ".png":
        raise InputError(f"--figure: got {figure}, expected a name that ends in .png")
    if figure is not None and figure == out:
        raise InputError(f"--figure: got {figure}, which --out is too; give them different names")


def _names(folders: tuple[Path, ...]) -> list[str]:
    """Return short names that distinguish the folders."""
    names = [Path(os.path.realpath(folder)).name for folder in each_once("FOLDER", folders)]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _tables(
    sweeps: "Mapping[str, Records]", planned: "Mapping[str, Collection[JobKey] | None]", selections: "Sequence[str]"
) -> "list[Table]":
    """Return every selection's tables of data sets and of averages; rows bear the sweep's name if there are several."""
    from fishr.protocols.domainbed.collection import averages_table, dataset_tables, side_by_side

    named = {name: list["Table"]() for name in sweeps}
    for selection in selections:
        for name, read in sweeps.items():
            tables = dataset_tables(read, selection, planned[name])
            named[name] += [*tables, averages_table(tables)]
    return list(side_by_side(named)) if len(sweeps) > 1 else named[next(iter(sweeps))]
