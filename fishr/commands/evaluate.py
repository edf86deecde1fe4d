"""``fishr evaluate``."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fishr.commands.progress import parts_bar
from fishr.commands.shared import JSON_FILE, PATH, SEED, about, find_images, load_run, loading, run_options
from fishr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fishr.data.images.list_files import Columns


@click.command(**about("Score a run's model with intervals.", "evaluate runs/pacs --on photos -o scores.json"))
@click.argument("run", type=PATH, metavar="RUN")
@click.option(
    "--on",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="Data to score it on, see above (default: all domains of its own data); repeatable.",
)
@click.option(
    "--columns",
    metavar="PATH,LABEL[,DOMAIN]",
    help="Columns of a list (default: path, label or class, and domain or environment if there is one).",
)
@click.option("-o", "--out", type=JSON_FILE, metavar="FILE.json", help="New file of all numbers.")
@click.option("--resamples", type=SEED, default=1000, metavar="N", help="Resamples of the intervals; 0: no intervals.")
@click.option("--seed", type=SEED, default=0, metavar="N", help="Seed of the resamples.")
@click.option("--per-class", is_flag=True, help="Show each class and the confusion matrix; JSON has them always.")
@run_options
def evaluate(
    run: Path,
    sources: tuple[str, ...],
    columns: str | None,
    out: Path | None,
    resamples: int,
    seed: int,
    per_class: bool,
    data_dir: Path | None,
    device: str,
    style: str,
    plugins: tuple[str, ...],
) -> None:
    """Score the last checkpoint of a run folder on domains, with 95 % bootstrap intervals.

    SOURCE is a folder CLASS/IMAGE (one domain) or DOMAIN/CLASS/IMAGE, a data set of `fishr data list`, a .csv, .json or
    .jsonl of images, a file of `fishr cache images`, for runs on features one of `fishr cache features`, an .npz with
    inputs and labels, the TOML file of an experiment for its data, or the name of a domain or environment of the run's
    own data. Classes are matched by their names. With files, the run's own data are not needed.
    """
    with loading():
        from fishr.commands.score_tables import class_tables, result_table
        from fishr.files import fill_atomically, json_text
        from fishr.inference.prediction_files import check_new_file
        from fishr.inference.scoring import Bootstrap, result_object, score_run

    if out is not None:
        check_new_file(out)
    on, bootstrap = list(dict.fromkeys(_source(one, data_dir) for one in sources)), Bootstrap(resamples, seed)
    with parts_bar("sample", f"{run}: interrupted; nothing was written", many=True) as progress:
        step, results = score_run(
            load_run(run, plugins),
            run,
            on,
            data_dir=data_dir,
            device=device,
            plugins=plugins,
            columns=_columns(columns, on),
            bootstrap=bootstrap,
            progress=partial(progress, ""),
        )
    found = result_object(run, step, results, bootstrap)
    if out is not None:
        content = json_text(found, indent=2).encode() + b"\n"
        fill_atomically(out, lambda file: file.write(content), lambda partial: check_new_file(out))
    if style == "json":
        click.echo(json_text(found))
        return
    blocks = [f"{run} after {step} steps", result_table(results, bootstrap)]
    if per_class:
        blocks += class_tables(results)
    if out is not None:
        blocks.append(f"result: {out}")
    click.echo("\n\n".join(blocks))


def _source(text: str, data_dir: Path | None) -> Path | str:
    """Return a path, or the name of a domain of the run's own data."""
    from fishr.inference.labelled_domains import EXTENSIONS

    path = find_images(text, data_dir)
    is_path = path.exists() or len(path.parts) > 1 or path.suffix.lower() in EXTENSIONS
    return path if is_path else text


def _columns(text: str | None, on: "Sequence[Path | str]") -> "Columns | None":
    from fishr.data.images.list_files import LIST_EXTENSIONS, Columns

    if text is None:
        return None
    names = text.split(",")
    if len(names) not in (2, 3) or not all(names):
        raise InputError(f"--columns: got {text!r}, expected PATH,LABEL or PATH,LABEL,DOMAIN, as in file,species,site")
    if not any(isinstance(one, Path) and one.suffix.lower() in LIST_EXTENSIONS for one in on):
        raise InputError("--columns: got it without a list of images; drop it, or give a .csv, .json or .jsonl to --on")
    return Columns(*names, *[None] * (3 - len(names)))
