"""``fishr bench``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.commands.shared import (
    COUNT,
    PATH,
    data_dir_option,
    device_option,
    find_images,
    format_option,
    image_size_option,
    image_source_argument,
)

if TYPE_CHECKING:
    from fishr.data.images.throughput import Speed


@click.group(epilog="Example: fishr bench data PACS --cache pacs.h5")
def bench() -> None:
    """Measure on this machine what a run would be bound by."""


@bench.command(
    short_help="Measure images a second.", epilog="Example: fishr bench data PACS --cache pacs.h5 --batch 32"
)
@image_source_argument
@click.option("--cache", type=PATH, metavar="FILE", help="Its images in a file of `fishr cache images`, measured too.")
@image_size_option
@click.option("--batch", type=COUNT, default=32, show_default=True, help="Images of each environment in a batch.")
@click.option(
    "--rows",
    type=COUNT,
    default=500,
    show_default=True,
    metavar="N",
    help="Take N images of each environment at most.",
)
@click.option("--rounds", type=click.IntRange(2, 1000), default=5, show_default=True, help="Turns of each way.")
@click.option(
    "--workers",
    type=COUNT,
    metavar="N",
    help="Threads that read, and that a CPU computes with (default: as torch has them).",
)
@device_option
@data_dir_option
@format_option
def data(
    source: str,
    cache: Path | None,
    size: int,
    batch: int,
    rows: int,
    rounds: int,
    workers: int | None,
    device: str,
    data_dir: Path | None,
    style: str,
) -> None:
    """Measure how many images a second become inputs of a model, by each way there is.

    NAME_OR_PATH is one of `fishr data list`, a folder of ENVIRONMENT/CLASS/IMAGE, or a .csv, .json or .jsonl with
    environment, class and path of each image. Batches are drawn and read ahead as in training, and the
    ways take turns: medians and quartiles over the rounds are given, and how many times faster a way is than reading
    files and augmenting image by image. After the first round files come from the system's memory, not from the disk.

    `prepare` is a setting of ImageFolders and ImageList: "reader", "device" or "held".
    """
    import torch

    from fishr.commands.rendering import as_json
    from fishr.data.images import ImageFolders, ImageList
    from fishr.data.images.list_files import LIST_EXTENSIONS
    from fishr.data.images.throughput import measure, ways_of
    from fishr.training.compute import resolve_device

    if workers is not None:
        torch.set_num_threads(workers)
    where, threads = resolve_device(device), torch.get_num_threads()
    place = find_images(source, data_dir)
    is_list = place.suffix.lower() in LIST_EXTENSIONS
    # A configuration's relative paths would start at the data folder.
    chosen = (ImageList if is_list else ImageFolders)(str(place.absolute()), size=size, samples=rows)
    cached = None if cache is None else str(cache.absolute())
    speeds = measure(ways_of(chosen, data_dir, where, cached), batch, rounds)
    if style == "table":
        title = f"{source}: batches of {batch} images of {size}² of each environment"
        click.echo(f"{title}, {where}, {threads} threads\n{_table(speeds)}")
        return
    settings = {"source": source, "size": size, "batch": batch, "threads": threads}
    click.echo(as_json(settings | {"device": str(where), "ways": _entries(speeds)}))


def _table(speeds: "Sequence[Speed]") -> str:
    from tabulate import tabulate

    rows = [
        (
            entry["images"],
            entry["prepare"],
            "augmented" if entry["augmented"] else "plain",
            _spread(entry["images_per_second"], ",.0f"),
            _spread(entry["times_faster"], ".2f"),
        )
        for entry in _entries(speeds)
    ]
    header = ("images", "prepare", "inputs", "images/s", "times faster")
    return tabulate(rows, header, disable_numparse=True)


def _entries(speeds: "Sequence[Speed]") -> list[dict[str, Any]]:
    """Augmented inputs first; each way is compared to that of files and readers, augmented or plain as it is."""
    bases = {s.way.augmented: s for s in speeds if (s.way.images, s.way.prepare) == ("files", "reader")}
    return [
        {
            "images": speed.way.images,
            "prepare": speed.way.prepare,
            "augmented": speed.way.augmented,
            "images_per_second": _named(speed.quartiles),
            "times_faster": _named(speed.over(bases[speed.way.augmented])),
        }
        for speed in sorted(speeds, key=lambda speed: not speed.way.augmented)
    ]


def _named(quartiles: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("low", "median", "high"), quartiles, strict=True))


def _spread(numbers: dict[str, float], form: str) -> str:
    return f"{numbers['median']:{form}} ({numbers['low']:{form}} to {numbers['high']:{form}})"
