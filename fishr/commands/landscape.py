"""``fishr landscape``."""

import re
from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.commands.progress import parts_bar, progress_bar
from fishr.commands.shared import (
    COUNT,
    HDF5_FILE,
    PATH,
    SEED,
    about,
    each_once,
    loading,
    repeatable_option,
    run_options,
)
from fishr.errors import InputError
from fishr.paths import check_file_writable

if TYPE_CHECKING:
    from fishr.landscape.surface import Surface

KINDS = ("random", "pca", "checkpoints", "eigen", "gradients", "line", "interpolation")


@click.command(
    **about("Draw the domains' risks around a run's weights.", "landscape runs/fishr --directions random --grid 51")
)
@click.argument("subject", type=PATH, metavar="RUN_OR_FILE")
@click.argument("second", type=PATH, metavar="[SECOND]", required=False)
@click.option(
    "--directions", "kind", type=click.Choice(KINDS), help="Directions (default: random; with SECOND, interpolation)."
)
@click.option("--grid", default="51", metavar="N[xM]", help="Points of each axis, such as 51x31.")
@click.option("--span", type=float, default=1.0, metavar="X", help="Reach of the axes from the weights.")
@repeatable_option("--domains", metavar="NAME", help="A domain to evaluate (default: all)")
@repeatable_option("--of", metavar="NAME", help="Domain of the eigenvectors, or each of the two of the gradients")
@click.option(
    "--parameters", type=click.Choice(["head", "all"]), help="Parameters that move (default: head; of two runs, all)."
)
@click.option("--seed", type=SEED, default=0, metavar="N", help="Seed of random directions.")
@click.option("--lines", type=COUNT, default=5, metavar="N", help="Number of lines, for line directions.")
@click.option("--epsilon", type=float, default=0.1, metavar="X", help="ε of inconsistency and level sets, loss.")
@click.option("--animate", is_flag=True, help="Also draw a GIF over the kept checkpoints of the run.")
@click.option("-o", "--out", type=HDF5_FILE, help="HDF5 file (default: RUN/landscape-KIND.h5).")
@run_options
def landscape(
    subject: Path,
    second: Path | None,
    kind: str | None,
    grid: str,
    span: float,
    domains: tuple[str, ...],
    of: tuple[str, ...],
    parameters: str | None,
    seed: int,
    lines: int,
    epsilon: float,
    animate: bool,
    out: Path | None,
    style: str,
    **source: Any,
) -> None:
    """Evaluate every domain's risk on a line or plane through weight space, into an HDF5 file with figures beside it.

    RUN_OR_FILE is a run folder, or a cache of features. With SECOND, the line goes from the weights of one run to
    those of the other. After an interruption, the same command resumes; when finished, it draws the figures again.
    """
    with loading():
        from fishr.analysis.landscape_evaluation import evaluate_plan, is_finished
        from fishr.analysis.landscape_options import Options
        from fishr.analysis.landscape_plan import plan_landscape
        from fishr.analysis.opening import open_subject
        from fishr.files import json_text
        from fishr.landscape.surface_file import load_surface
        from fishr.plots.landscape import check_pictures, save_landscape_figures

    if not 0 <= epsilon < float("inf"):
        raise InputError(f"--epsilon: got {epsilon}, expected a number of at least 0")
    each_once("SECOND", [subject, second])
    directions: Any = kind or ("random" if second is None else "interpolation")
    moved: Any = parameters or ("all" if directions == "interpolation" else "head")
    options = Options(directions, _points(grid, directions), span, moved, seed, of, lines, animate)
    name = f"landscape-{directions}.h5"
    path = out or (subject / name if subject.is_dir() else subject.with_suffix(f".{name}"))
    check_file_writable(path)
    check_pictures(path)
    chosen: Any = "all" if domains in ((), ("all",)) else domains
    opened = partial(open_subject, domains=chosen, **source)
    plan = plan_landscape(opened(subject), options, None if second is None else opened(second))
    if not is_finished(path, plan):
        with progress_bar(f"{path}: interrupted; the same command resumes it", desc=path.name, unit="part") as bar:
            for done, total in evaluate_plan(plan, path):
                bar.total = total
                bar.update(done - bar.n)
    with parts_bar("picture", f"{path}: interrupted; the same command draws its figures") as progress:
        files = [path, *save_landscape_figures(path, epsilon, partial(progress, "film"))]
    found = _object(load_surface(path), epsilon, files)
    click.echo(json_text(found) if style == "json" else _text(found))


def _points(grid: str, kind: str) -> tuple[int, ...]:
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", grid)
    points = tuple(int(each) for each in found.groups() if each) if found else ()
    if not points or 0 in points:
        raise InputError(f"--grid: got {grid!r}, expected points of each axis, such as 51 or 51x31")
    return points * 2 if len(points) == 1 and kind not in ("line", "interpolation") else points


def _object(surface: "Surface", epsilon: float, files: list[Path]) -> dict[str, Any]:
    from fishr.analysis.landscape_evaluation import summary_of, training_inconsistency

    directions, summary = surface.directions, summary_of(surface)
    names = ("name", "title", "split", *summary)
    rows = zip(surface.domains, surface.titles, surface.splits, *summary.values(), strict=True)
    return {
        "surface": str(files[0]),
        "figures": [str(path) for path in files[1:]],
        "directions": {name: getattr(directions, name) for name in ("kind", "names", "seed", "explained")},
        "grid": [len(axis) for axis in surface.axes],
        "route": surface.route,
        "domains": [dict(zip(names, row, strict=True)) for row in rows],
        "epsilon": epsilon,
        "inconsistency": training_inconsistency(surface, epsilon),
    }


def _text(found: dict[str, Any]) -> str:
    from tabulate import tabulate

    from fishr.training.evaluation import percentage

    def cell(name: str, value: str | float) -> str:
        if isinstance(value, str):
            return value
        return percentage(value) if name == "accuracy" else "–" if isnan(value) else f"{value:.4g}"

    rows = [
        {name: cell(name, value) for name, value in domain.items() if name != "name"} for domain in found["domains"]
    ]
    table = tabulate(rows, {"title": "domain"}, disable_numparse=True)
    lines = [f"{found['directions']['kind']}: {', '.join(found['directions']['names'])}", "", table, ""]
    if found["inconsistency"] is not None:
        inconsistency, epsilon = found["inconsistency"], found["epsilon"]
        lines.append(f"inconsistency of the training domains: {inconsistency:.4g} (ε = {epsilon:g})")
    return "\n".join([*lines, f"surface: {found['surface']}", *(f"figure: {path}" for path in found["figures"])])
