"""``fishr report``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fishr.commands.shared import (
    PATH,
    about,
    data_dir_option,
    device_option,
    load_run,
    plugin_option,
    progress_bar,
)
from fishr.errors import InputError
from fishr.paths import check_writable

if TYPE_CHECKING:
    from fishr.reports import Page


@click.command(**about("Write a page for a browser.", "report runs/fishr -o report.html"))
@click.argument("subject", type=PATH, metavar="RUN_OR_FILE")
@click.option("-o", "--out", type=PATH, metavar="FILE.html", help="The page (default: RUN/report.html or FILE.html).")
@click.option("--no-data", is_flag=True, help="Leave out what needs a run's data: class counts, samples, confusions.")
@data_dir_option
@device_option
@plugin_option
def report(
    subject: Path, out: Path | None, no_data: bool, data_dir: Path | None, device: str, plugins: tuple[str, ...]
) -> None:
    """Write one HTML file, which needs no network.

    RUN_OR_FILE is a run folder, or a file of `fishr analyze`, `fishr landscape` or --record-statistics. A run's page
    has its scores, data, learning curves, confusion matrices, objective and settings, and the analysis and landscapes
    in its folder. An earlier report is replaced; any other file is refused.
    """
    from fishr.reports import analysis_page, load_run_data, run_page, write_page

    path = out or (subject / "report.html" if subject.is_dir() else subject.with_suffix(".html"))
    if subject.is_file() or subject.with_suffix(".h5").is_file():
        page = partial(analysis_page, subject)
    else:
        experiment = load_run(subject, plugins)

        def page() -> "Page":
            if no_data:
                return run_page(subject, experiment)
            with progress_bar(f"{subject}: interrupted; nothing was written", unit="sample", unit_scale=True) as bar:
                known = load_run_data(subject, experiment, data_dir, device, bar.update)
            return run_page(subject, experiment, known)

    _check(path)
    write_page(page(), path)
    click.echo(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _check(path: Path) -> None:
    """Refuse a path that cannot be written, or where something other than a report is."""
    from fishr.reports.page import GENERATOR

    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; make it first")
    check_writable(path)
    if path.exists() and (not path.is_file() or GENERATOR not in path.read_bytes()[:1000].decode(errors="replace")):
        raise InputError(f"{path}: exists already and is not a report; choose another place with -o")
