"""``fishr report``."""

from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fishr.commands.progress import parts_bar
from fishr.commands.shared import (
    HTML_FILE,
    PATH,
    about,
    data_dir_option,
    device_option,
    each_once,
    load_run,
    loading,
    plugin_option,
)
from fishr.errors import InputError
from fishr.paths import check_file_writable

if TYPE_CHECKING:
    from fishr.reports import Page, RunData
    from fishr.training import Experiment


@click.command(**about("Write a page for a browser.", "report runs/erm runs/fishr -o report.html"))
@click.argument("subject", type=PATH, metavar="RUN_OR_FILE")
@click.argument("second", type=PATH, metavar="[SECOND]", required=False)
@click.option(
    "-o", "--out", type=HTML_FILE, metavar="FILE.html", help="The page (default: RUN/report.html or FILE.html)."
)
@click.option("--no-data", is_flag=True, help="Leave out what needs a run's data: class counts, samples, confusions.")
@click.option("--replace", is_flag=True, help="Replace a report of something else.")
@data_dir_option
@device_option
@plugin_option
def report(
    subject: Path,
    second: Path | None,
    out: Path | None,
    no_data: bool,
    replace: bool,
    data_dir: Path | None,
    device: str,
    plugins: tuple[str, ...],
) -> None:
    """Write a page for a browser: one HTML file, which needs no network.

    RUN_OR_FILE is a run folder, a sweep folder, or a file of `fishr analyze`, `fishr landscape`, `fishr cache features`
    or --record-statistics. A run's page has its scores, data, learning curves, confusion matrices, objective and
    settings, and the analysis and landscapes in its folder. A sweep's page has its progress, tables, jobs and failures.
    With SECOND, the page compares two runs. An earlier report of the same is replaced, and with
    --replace one of something else; any other file is refused.
    """
    with loading():
        from attrs import evolve

        from fishr.data.caches.feature_cache import KIND as FEATURES
        from fishr.data.caches.hdf5 import read_header
        from fishr.reports import (
            analysis_page,
            comparison_page,
            features_page,
            load_run_data,
            run_page,
            side_by_side,
            sweep_page,
            write_page,
        )
        from fishr.sweeps.folder import is_sweep

    def known(folder: Path, experiment: "Experiment") -> "RunData | None":
        if no_data:
            return None
        with parts_bar("sample", f"{folder}: interrupted; nothing was written", many=True) as progress:
            return load_run_data(folder, experiment, data_dir, device, partial(progress, ""))

    subjects = each_once("SECOND", [subject, second])
    if missing := [one for one in subjects if not one.exists() and not _has_figures(one)]:
        raise InputError(f"{missing[0]}: nothing is there; give a run folder, a sweep folder or a file of measurements")
    files = {one for one in subjects if one.is_file() or _has_figures(one)}
    features = {one for one in files if one.is_file() and read_header(one).kind == FEATURES}
    sweeps = {one for one in subjects if is_sweep(one)}
    experiments = [(one, load_run(one, plugins)) for one in subjects if one not in files | sweeps]
    path = out or (subject / "report.html" if subject.is_dir() else subject.with_suffix(".html"))
    source = sha256("\n".join(str(one.resolve()) for one in subjects).encode(errors="surrogateescape")).hexdigest()
    _check(path, None if replace else source)
    runs = {folder: (folder, experiment, known(folder, experiment)) for folder, experiment in experiments}
    if len(runs) == 2:
        page = comparison_page(*runs.values(), plugins=plugins)
    else:

        def page_of(one: Path) -> "Page":
            if one in sweeps:
                with parts_bar("job", f"{one}: interrupted; nothing was written") as progress:
                    return sweep_page(one, partial(progress, ""))
            if one in features:
                return features_page(one, data_dir, pictures=not no_data, plugins=plugins)
            return analysis_page(one) if one in files else run_page(*runs[one], plugins)

        page, *rest = map(page_of, subjects)
        page = side_by_side(page, rest[0]) if rest else page
    write_page(evolve(page, source=source), path)
    click.echo(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _has_figures(folder: Path) -> bool:
    """Return whether a folder has the figures of an analysis beside it, rather than a run or a sweep."""
    other = any((folder / name).exists() for name in ("config.toml", "plan.toml"))
    return not other and folder.with_suffix(".h5").is_file()


def _check(path: Path, source: str | None) -> None:
    """Refuse a path that cannot be written or has anything but a report, of a source if one is given."""
    from fishr.reports.page import GENERATOR, chart_scripts

    check_file_writable(path)
    if path.exists():
        head = path.read_bytes()[:1000].decode(errors="replace") if path.is_file() else ""
        if GENERATOR not in head:
            raise InputError(f"{path}: exists already and is not a report; choose another place with -o")
        if source is not None and source not in head:
            raise InputError(f"{path}: a report of something else; add --replace, or choose another place with -o")
    # Fails where the package is missing, before the work.
    chart_scripts()
