"""``fishr landscape``."""

import re
import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.commands.shared import COUNT, PATH, SEED, data_dir_option, device_option, format_option, plugin_option
from fishr.errors import InputError, RunFailed

if TYPE_CHECKING:
    from fishr.analysis import Subject
    from fishr.analysis.landscaping import Landscape, Plan, Summary
    from fishr.landscape import Surface

KINDS = ("random", "pca", "checkpoints", "eigen", "gradients", "line", "interpolation")


@click.command(
    short_help="Draw the domains' risks around a run's weights.",
    epilog="Example: fishr landscape runs/fishr --directions random --grid 51",
)
@click.argument("subject", type=PATH, metavar="RUN_OR_FILE")
@click.argument("second", type=PATH, metavar="[SECOND]", required=False)
@click.option("--directions", "kind", type=click.Choice(KINDS), help="Along what (default: random).")
@click.option("--grid", default="51", show_default=True, metavar="N[xM]", help="Points of each axis, such as 51x31.")
@click.option("--span", type=float, default=1.0, show_default=True, help="How far from the weights.")
@click.option("--domains", multiple=True, metavar="NAME", help="A domain to look at; repeatable (default: all).")
@click.option("--of", multiple=True, metavar="NAME", help="Whose eigenvectors, or whose two gradients; repeatable.")
@click.option(
    "--parameters",
    type=click.Choice(["head", "all"]),
    help="Which weights move (default: head; between two runs, all).",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of random directions.")
@click.option("--lines", type=COUNT, default=5, show_default=True, help="How many, of kind line.")
@click.option("--epsilon", type=float, default=0.1, show_default=True, help="ε of inconsistency and level sets, loss.")
@click.option("--animate", is_flag=True, help="A GIF over the checkpoints that the run kept.")
@click.option("-o", "--out", type=PATH, help="HDF5 file (default: RUN/landscape-KIND.h5).")
@data_dir_option
@device_option
@format_option
@plugin_option
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
    data_dir: Path | None,
    device: str,
    style: str,
    plugins: tuple[str, ...],
) -> None:
    """Evaluate every domain's risk on one line or plane through weight space, into an HDF5 file with figures beside it.

    RUN_OR_FILE is a run folder, or a cache of features. With SECOND, the line between the two runs' weights. Killed,
    the same command goes on where it was; finished, it draws the figures again.
    """
    from fishr.analysis import open_subject
    from fishr.analysis.landscaping import is_finished, plan_landscape, summarise
    from fishr.landscape import load_surface
    from fishr.plots.landscape import check_pictures, save_landscape_figures

    if not 0 <= epsilon < float("inf"):
        raise InputError(f"--epsilon: got {epsilon}, expected a number of at least 0")
    wanted = _wanted(kind, second, grid, span, of, parameters, seed, lines, animate)
    options: dict[str, Any] = {"data_dir": data_dir, "device": device, "plugins": plugins}
    chosen: Any = "all" if domains in ((), ("all",)) else domains
    path = out or _default_path(subject, wanted.kind)
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; make it first")
    check_pictures(path)
    opened = open_subject(subject, domains=chosen, **options)
    other = None if second is None else open_subject(second, domains=chosen, **options)
    plan = plan_landscape(opened, wanted, other)
    if not is_finished(path, plan):
        _follow(opened, plan, path)
    surface = load_surface(path)
    summary = summarise(surface, epsilon)
    pictures = save_landscape_figures(path, epsilon)
    click.echo((_json if style == "json" else _text)(surface, summary, [path, *pictures]))


def _wanted(
    kind: str | None,
    second: Path | None,
    grid: str,
    span: float,
    of: tuple[str, ...],
    parameters: str | None,
    seed: int,
    lines: int,
    animate: bool,
) -> "Landscape":
    from fishr.analysis.landscaping import Landscape

    chosen: Any = kind or ("random" if second is None else "interpolation")
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", grid)
    if found is None or "0" in {each.lstrip("0") or "0" for each in found.groups() if each}:
        raise InputError(f"--grid: got {grid!r}, expected points of each axis, such as 51 or 51x31")
    points = tuple(int(each) for each in found.groups() if each)
    if len(points) == 1 and chosen not in ("line", "interpolation"):
        points *= 2
    moved: Any = parameters or ("all" if chosen == "interpolation" else "head")
    return Landscape(chosen, points, span, moved, seed, of, lines, animate)


def _default_path(subject: Path, kind: str) -> Path:
    return subject / f"landscape-{kind}.h5" if subject.is_dir() else subject.with_suffix(f".landscape-{kind}.h5")


def _follow(subject: "Subject", plan: "Plan", path: Path) -> None:
    from tqdm import tqdm

    from fishr.analysis.landscaping import evaluate_plan

    try:
        with tqdm(desc=path.name, unit="part", disable=not sys.stderr.isatty()) as bar:
            for done, total in evaluate_plan(subject, plan, path):
                bar.total = total
                bar.update(done - bar.n)
    except KeyboardInterrupt:
        raise RunFailed(f"{path}: interrupted; the same command goes on with it") from None


def _text(surface: "Surface", summary: "Summary", files: list[Path]) -> str:
    from tabulate import tabulate

    columns = zip(summary.domains, summary.splits, *_numbers(summary).values(), strict=True)
    rows = [(name, split, *(f"{number:.4g}" for number in numbers)) for name, split, *numbers in columns]
    table = tabulate(rows, ("domain", "split", *_numbers(summary)), disable_numparse=True)
    lines = [f"{surface.directions.kind}: {', '.join(surface.directions.names)}", "", table, ""]
    if summary.inconsistency is not None:
        lines.append(f"inconsistency of the training domains: {summary.inconsistency:.4g} (ε = {summary.epsilon:g})")
    return "\n".join([*lines, f"surface: {files[0]}", *(f"figure: {path}" for path in files[1:])])


def _numbers(summary: "Summary") -> dict[str, tuple[float, ...]]:
    found = {"risk": summary.centre, "lowest": summary.lowest, "highest": summary.highest}
    found |= {"accuracy": summary.accuracy}
    return found if summary.barrier is None else found | {"barrier": summary.barrier}


def _json(surface: "Surface", summary: "Summary", files: list[Path]) -> str:
    from fishr.commands.rendering import as_json

    told = zip(summary.domains, summary.splits, *_numbers(summary).values(), strict=True)
    names = ("name", "split", *_numbers(summary))
    return as_json(
        {
            "surface": str(files[0]),
            "figures": [str(path) for path in files[1:]],
            "directions": {
                "kind": surface.directions.kind,
                "names": surface.directions.names,
                "seed": surface.directions.seed,
                "explained": surface.directions.explained,
            },
            "grid": [len(axis) for axis in surface.axes],
            "route": surface.route,
            "domains": [dict(zip(names, map(_finite, entry), strict=True)) for entry in told],
            "epsilon": summary.epsilon,
            "inconsistency": summary.inconsistency,
        }
    )


def _finite(value: Any) -> Any:
    # JSON has neither infinity nor NaN.
    return None if isinstance(value, float) and not isfinite(value) else value
