"""``fishr analyze``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.commands.analyze_statistics import analyze_statistics
from fishr.commands.progress import steps_shown
from fishr.commands.shared import COUNT, HDF5_FILE, PATH, SEED, about, each_once, loading, run_options
from fishr.errors import InputError
from fishr.paths import check_file_writable

if TYPE_CHECKING:
    from fishr.analysis import Analysis, History, Subject

_LONG = 60  # seconds from which an analysis is announced


def _explain(context: click.Context, _: click.Parameter, row: str | None) -> None:
    """Print what a row of the tables is, and end."""
    if row is None:
        return
    from fishr.configuration.problems import suggestion
    from fishr.diagnostics import diagnostics

    entries = diagnostics()
    titles = {entry.headline: name for name, entry in entries.items() if entry.headline}
    name = titles.get(row, row)
    if name not in entries:
        raise InputError(f"--explain: got {row!r}, expected a row of the tables{suggestion(row, [*entries, *titles])}")
    parts = entries[name].explanation
    width = max(map(len, parts))
    click.echo("\n".join([name, *(f"  {part:<{width}}  {text}" for part, text in parts.items())]).replace("``", ""))
    context.exit()


@click.command(**about("Measure how far a run's domains are apart.", "analyze runs/erm runs/fishr --figures figures"))
@click.argument("subject", type=PATH, metavar="RUN_OR_FILE")
@click.argument("second", type=PATH, metavar="[SECOND]", required=False)
@click.option("-o", "--out", type=HDF5_FILE, help="HDF5 result (default: RUN/analysis.h5 or FILE.analysis.h5).")
@click.option("--figures", type=PATH, help="Folder of the figures (default: beside the result).")
@click.option("--samples", type=click.IntRange(min=2), metavar="N", help="Most samples of each domain (default: all).")
@click.option("--seed", type=SEED, default=0, metavar="N", help="Seed of the draw of samples.")
@click.option(
    "--network", is_flag=True, help="Also measure the whole network; for runs only, a minute or more if it is large."
)
@click.option(
    "--eigenvalues",
    "rank",
    type=COUNT,
    metavar="N",
    help="Eigenvalues of each Hessian (default: 20; 5 of large heads and networks).",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, max_open=True),
    default=1e-3,
    metavar="X",
    show_default=True,
    help="Largest residual of these eigenvalues in large heads and networks, as a share of the largest of them.",
)
@click.option(
    "--explain",
    metavar="ROW",
    is_eager=True,
    expose_value=False,
    callback=_explain,
    help="Print what a row of the tables means and how it is computed; needs no RUN_OR_FILE.",
)
@click.option("--replace", is_flag=True, help="Replace a result and figures of another source or other settings.")
@run_options
def analyze(
    subject: Path,
    second: Path | None,
    out: Path | None,
    figures: Path | None,
    samples: int | None,
    seed: int,
    network: bool,
    rank: int | None,
    tolerance: float,
    replace: bool,
    style: str,
    **source: Any,
) -> None:
    """Measure the gradients, Fisher and Hessian of a head on each domain and between domains.

    RUN_OR_FILE is a run folder, whose last checkpoint is measured, or a cache of features or gradients. With SECOND,
    both are shown side by side, with the ratio of each headline number; figures are then drawn only with --figures.

    Repeating an analysis replaces its result. The result of another analysis is replaced only with --replace.

    RUN_OR_FILE may also be a run's statistics.h5, whose distances are then shown over the steps.
    """
    with loading():
        from fishr.analysis import (
            Settings,
            is_statistics,
            load_analysis,
            load_history,
            may_replace,
            open_subject,
            save_analysis,
        )
        from fishr.analysis import analyze as measured
        from fishr.diagnostics import diagnostics
        from fishr.plots.analysis import check_figures, save_analysis_figures

    paths = each_once("SECOND", [subject, second])
    if any(map(is_statistics, paths)):
        analyze_statistics(paths, figures, style, replace=replace)
        return
    settings = Settings(samples=samples, seed=seed, network=network, rank=rank, tolerance=tolerance)
    if out is not None and second is not None:
        raise InputError("--out: got it with two subjects, each of which has its own result; drop one of them")
    if out is not None:
        check_file_writable(out)
    subjects = [open_subject(path, **source) for path in paths]
    histories = [history for path in paths if (history := load_history(path)) is not None]
    results = [out or (p / "analysis.h5" if p.is_dir() else p.with_suffix(".analysis.h5")) for p in paths]
    folder = figures or (results[0].with_suffix("") if second is None else None)
    # Refuse before the work what would be refused after it.
    opened = zip(results, subjects, strict=True)
    work = [(result, one, may_replace(result, one.source, settings, replace=replace)) for result, one in opened]
    if folder is not None:
        check_figures(folder, [(one.source, settings) for one in subjects], replace=replace)

    total = len(work) * (len(diagnostics("head")) + (len(diagnostics("network")) if network else 0))
    with steps_shown(f"{subject}: interrupted; analyze it again", total) as show:
        for result, one, there in work:
            save_analysis(result, measured(one, settings, show, _announce(one)), replace=there)
    analyses = [load_analysis(result) for result in results]
    drawn = [] if folder is None else save_analysis_figures(analyses, histories, folder, replace=replace)
    click.echo((_json if style == "json" else _text)(analyses, histories, results, drawn))


def _announce(subject: "Subject") -> Callable[[float], None]:
    """Return a function that says on stderr how long an analysis will take, if that is long."""
    from fishr.commands.sweep_tables import duration

    def announce(seconds: float) -> None:
        if seconds > _LONG:
            size = max(2, min(subject.seen.sizes) // 4)
            click.echo(f"{subject.name}: about {duration(seconds)}; --samples {size} is shorter", err=True)

    return announce


def _text(analyses: "list[Analysis]", histories: "list[History]", results: list[Path], drawn: list[Path]) -> str:
    from fishr.commands.analysis_tables import analysis_text, comparison_text

    first, *others = analyses
    table = comparison_text(first, others[0], histories) if others else analysis_text(first, histories)
    files = [f"result: {path}" for path in results] + [f"figure: {path}" for path in drawn]
    return "\n".join([table, "", *files])


def _json(analyses: "list[Analysis]", histories: "list[History]", results: list[Path], drawn: list[Path]) -> str:
    from fishr.analysis import headlines, ratio
    from fishr.commands.analysis_tables import analysis_object, record_object
    from fishr.files import json_text

    found = [analysis_object(one) | {"result": str(path)} for one, path in zip(analyses, results, strict=True)]
    rest = {"figures": [str(path) for path in drawn], "histories": list(map(record_object, histories))}
    if len(found) == 1:
        return json_text(found[0] | rest)
    one, two = (headlines(analysis) for analysis in analyses)
    ratios = {name: ratio(headline, two[name]) for name, headline in one.items() if name in two}
    return json_text({"subjects": found, "ratios": ratios} | rest)
