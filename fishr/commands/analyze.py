"""``fishr analyze``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.commands.shared import PATH, SEED, data_dir_option, device_option, format_option, plugin_option
from fishr.errors import InputError

if TYPE_CHECKING:
    from fishr.analysis import Analysis, History, Settings


@click.command(
    short_help="Measure how far a run's domains are apart.",
    epilog="Example: fishr analyze runs/erm runs/fishr --figures figures",
)
@click.argument("subject", type=PATH, metavar="RUN_OR_FILE")
@click.argument("second", type=PATH, metavar="[SECOND]", required=False)
@click.option("-o", "--out", type=PATH, help="HDF5 result (default: RUN/analysis.h5 or FILE.analysis.h5).")
@click.option("--figures", type=PATH, help="Folder of the figures (default: beside the result).")
@click.option(
    "--samples", type=click.IntRange(min=2), metavar="N", help="Rows of each domain at most (default: all of them)."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Decides which rows.")
@click.option(
    "--network",
    is_flag=True,
    help="Measure the whole network too: of runs alone, and minutes a domain where it is large.",
)
@click.option("--replace", is_flag=True, help="Let a result and figures of another source or other settings give way.")
@data_dir_option
@device_option
@format_option
@plugin_option
def analyze(
    subject: Path,
    second: Path | None,
    out: Path | None,
    figures: Path | None,
    samples: int | None,
    seed: int,
    network: bool,
    replace: bool,
    data_dir: Path | None,
    device: str,
    style: str,
    plugins: tuple[str, ...],
) -> None:
    """Measure the gradients, Fisher and Hessian of a head on each domain and between domains.

    RUN_OR_FILE is a run folder, whose last checkpoint is looked at, or a cache of features or gradients. With SECOND,
    the two stand side by side, with the ratio of each headline number; figures are then drawn with --figures alone.
    The same analysis made again replaces its result; another one is refused unless --replace.
    """
    from fishr.analysis import Settings

    settings = Settings(samples=samples, seed=seed, network=network)
    paths = (subject,) if second is None else (subject, second)
    if out is not None and second is not None:
        raise InputError("--out: got it with two subjects, each of which has its own result; drop one of them")
    _analyze(
        paths, settings, out, figures, replace, style, {"data_dir": data_dir, "device": device, "plugins": plugins}
    )


def _analyze(
    paths: tuple[Path, ...],
    settings: "Settings",
    out: Path | None,
    figures: Path | None,
    replace: bool,
    style: str,
    options: dict[str, Any],
) -> None:
    import attrs

    from fishr.analysis import analyse, load_analysis, load_history, may_replace, open_subject, save_analysis
    from fishr.plots.analysis import check_figures, figures_key, save_analysis_figures

    subjects = [open_subject(path, **options) for path in paths]
    histories = [history for path in paths if (history := load_history(path)) is not None]
    results = [out or _result_of(path) for path in paths]
    folder = figures or (results[0].with_suffix("") if len(paths) == 1 else None)
    # What would be refused at the end is refused before the work.
    replaced = [
        may_replace(result, subject.source, settings, replace=replace)
        for subject, result in zip(subjects, results, strict=True)
    ]
    if folder is not None:
        key = figures_key([(subject.source, attrs.asdict(settings)) for subject in subjects])
        check_figures(folder, key, replace=replace)

    for subject, result, there in zip(subjects, results, replaced, strict=True):
        save_analysis(result, analyse(subject, settings), replace=there)
    analyses = [load_analysis(result) for result in results]
    drawn = [] if folder is None else save_analysis_figures(analyses, histories, folder, replace=replace)
    if style == "json":
        click.echo(_json(analyses, histories, results, drawn))
    else:
        click.echo(_text(analyses, histories, results, drawn))


def _result_of(path: Path) -> Path:
    return path / "analysis.h5" if path.is_dir() else path.with_suffix(".analysis.h5")


def _text(analyses: "list[Analysis]", histories: "list[History]", results: list[Path], drawn: list[Path]) -> str:
    from fishr.commands.analysis_tables import analysis_text, comparison_text

    first, *others = analyses
    table = comparison_text(first, others[0], histories) if others else analysis_text(first, histories)
    files = [f"result: {path}" for path in results] + [f"figure: {path}" for path in drawn]
    return "\n".join([table, "", *files])


def _json(analyses: "list[Analysis]", histories: "list[History]", results: list[Path], drawn: list[Path]) -> str:
    from fishr.analysis import headlines, ratio
    from fishr.commands.analysis_tables import analysis_object, finite, history_object
    from fishr.commands.rendering import as_json

    told = [analysis_object(analysis) | {"result": str(path)} for analysis, path in zip(analyses, results, strict=True)]
    rest = {"figures": [str(path) for path in drawn], "histories": [history_object(history) for history in histories]}
    if len(told) == 1:
        return as_json(told[0] | rest)
    one, two = (headlines(analysis) for analysis in analyses)
    ratios = {name: finite(ratio(headline, two[name])) for name, headline in one.items() if name in two}
    return as_json({"subjects": told, "ratios": ratios} | rest)
