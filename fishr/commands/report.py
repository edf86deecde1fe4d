"""``fishr report``."""

from pathlib import Path

import click

from fishr.commands.shared import PATH, about, load_run, plugin_option
from fishr.errors import InputError
from fishr.paths import check_writable


@click.command(**about("Write a page for a browser.", "report runs/fishr -o report.html"))
@click.argument("subject", type=PATH, metavar="RUN")
@click.option("-o", "--out", type=PATH, metavar="FILE.html", help="The page (default: RUN/report.html).")
@plugin_option
def report(subject: Path, out: Path | None, plugins: tuple[str, ...]) -> None:
    """Write a run as one HTML file, which needs no network: scores, learning curves, objective and settings.

    An earlier report is replaced; any other file is refused.
    """
    from fishr.reports import run_page, write_page

    experiment = load_run(subject, plugins)
    path = out or subject / "report.html"
    _check(path)
    write_page(run_page(subject, experiment), path)
    click.echo(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _check(path: Path) -> None:
    """Refuse a path that cannot be written, or where something other than a report is."""
    from fishr.reports.page import GENERATOR

    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; make it first")
    check_writable(path)
    if path.exists() and (not path.is_file() or GENERATOR not in path.read_bytes()[:1000].decode(errors="replace")):
        raise InputError(f"{path}: exists already and is not a report; choose another place with -o")
