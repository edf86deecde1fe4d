"""``fishr predict``."""

from pathlib import Path
from typing import Any

import click

from fishr.commands.progress import progress_bar
from fishr.commands.shared import FILE, PATH, about, device_option, loading, plugin_option
from fishr.errors import InputError, RunFailed


@click.command(**about("Classify images with a run's model.", "predict runs/pacs photos -o predictions.csv"))
@click.argument("run", type=PATH, metavar="RUN")
@click.argument("images", type=PATH, metavar="IMAGES...", nargs=-1, required=True)
@click.option("-o", "--out", type=FILE, required=True, help="File to write; it must not exist.")
@click.option(
    "--as",
    "form",
    type=click.Choice(["csv", "parquet"]),
    help="Format of the file (default: as its name ends).",
)
@click.option("--columns", "column", default="path", metavar="PATH", help="Column of the path in a list.")
@device_option
@plugin_option
def predict(
    run: Path, images: tuple[Path, ...], out: Path, form: Any, column: str, device: str, plugins: tuple[str, ...]
) -> None:
    """Write path, predicted class and the probability of each class for images of any size.

    IMAGES are images, folders, which are searched at any depth, and lists as .csv, .json or .jsonl, whose paths start
    at the list's folder. They get the preprocessing of the run's evaluation images; the run's data are not read. Files
    that cannot be read are named at the end, and the exit code is then 1.
    """
    with loading():
        from fishr.inference import image_files, load_model, write_predictions
        from fishr.inference.prediction_files import check_new_file

    check_new_file(out)
    if form is None and out.suffix not in (".csv", ".parquet"):
        raise InputError(f"{out}: got a name that ends in neither .csv nor .parquet; rename it, or add --as csv")
    form = form or out.suffix[1:]
    model = load_model(run, device=device, plugins=plugins)
    total = sum(1 for _ in image_files(images, column))
    with progress_bar(f"{out}: interrupted; nothing was written", total=total, unit="image") as bar:
        written = write_predictions(model, images, out, form, bar.update, column)
    click.echo(f"predictions: {out} ({written.images} images)")
    if written.unreadable:
        named = ", ".join(f"{one.path} ({one.reason})" for one in written.first)
        more = ", …" if written.unreadable > len(written.first) else ""
        raise RunFailed(
            f"{out}: has no row for {written.unreadable} of {written.images + written.unreadable} files, which cannot "
            f"be read as images: {named}{more}"
        )
