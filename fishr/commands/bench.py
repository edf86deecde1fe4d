"""``fishr bench``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.commands.progress import progress_bar
from fishr.commands.shared import (
    COUNT,
    FILE,
    about,
    data_dir_option,
    device_option,
    find_image_source,
    format_option,
    given_options,
    image_size_option,
    image_source_argument,
    loading,
    plugin_option,
)
from fishr.errors import InputError

if TYPE_CHECKING:
    from fishr.data.images.throughput import Speed


@click.group(epilog="Example: fishr bench data PACS --cache pacs.h5")
def bench() -> None:
    """Measure on this machine what limits a run."""


@bench.command(**about("Measure images a second.", "bench data PACS --cache pacs.h5 --batch 32"))
@image_source_argument
@click.option("--cache", type=FILE, help="File of `fishr cache images` with the same images, measured too.")
@image_size_option
@click.option("--batch", type=COUNT, default=32, metavar="N", help="Images of each environment in a batch.")
@click.option("--rows", type=COUNT, default=500, metavar="N", help="Largest number of images of each environment.")
@click.option("--rounds", type=click.IntRange(2, 1000), default=5, metavar="N", help="Turns of each way.")
@click.option("--workers", type=COUNT, metavar="N", help="Threads for reading and CPU computation (default: torch's).")
@device_option
@data_dir_option
@format_option
@plugin_option
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
    plugins: tuple[str, ...],
) -> None:
    """Measure how many images a second become inputs of a model, for each way to read them.

    NAME_OR_PATH is a name of `fishr data list`, a folder of ENVIRONMENT/CLASS/IMAGE, a .csv, .json or .jsonl with
    environment, class and path of each image, or the TOML file of an experiment on images, of which its size is
    taken too. Batches are drawn and read ahead as in training, and the ways take turns.
    The table has medians and quartiles over the rounds, and the speedup over reading files and augmenting them image by
    image. After the first round, files come from the system's memory, not from the disk.

    `prepare` is a setting of ImageFolders and ImageList: "reader", "device" or "device_cache".
    """
    with loading():
        import torch
        from attrs import evolve
        from tabulate import tabulate

        from fishr.data.images import ImageFolders, ImageList
        from fishr.data.images.list_files import LIST_EXTENSIONS
        from fishr.data.images.throughput import measure, ways_of
        from fishr.files import json_text
        from fishr.training.compute import resolve_device

    if workers is not None:
        torch.set_num_threads(workers)
    where, threads = resolve_device(device), torch.get_num_threads()
    chosen: Any = find_image_source(source, data_dir, plugins)
    if isinstance(chosen, Path):
        is_list = chosen.suffix.lower() in LIST_EXTENSIONS
        # Relative paths of a configuration would start at the data folder.
        chosen = (ImageList if is_list else ImageFolders)(str(chosen.absolute()), size=size)
    elif given := given_options("size"):
        raise InputError(f"{given[0]}: got it together with {source}, which has its own size; drop one")
    chosen, size = evolve(chosen, samples=rows), chosen.size
    cached = None if cache is None else str(cache.absolute())
    with progress_bar(f"{source}: interrupted", unit="turn") as bar:
        ways = ways_of(chosen, data_dir, where, cached)
        bar.total = (1 + rounds) * len(ways)
        entries = _entries(measure(ways, batch, rounds, bar.update))
    if style == "json":
        settings = {"source": source, "size": size, "batch": batch, "threads": threads}
        click.echo(json_text(settings | {"device": str(where), "ways": entries}))
        return
    header = ("images", "prepare", "inputs", "images/s", "times faster")
    rates, speedups = "{median:,.0f} ({low:,.0f} to {high:,.0f})", "{median:.2f} ({low:.2f} to {high:.2f})"
    cells = [
        (
            entry["images"],
            entry["prepare"],
            "augmented" if entry["augmented"] else "plain",
            rates.format_map(entry["images_per_second"]),
            speedups.format_map(entry["times_faster"]),
        )
        for entry in entries
    ]
    click.echo(f"{source}: batches of {batch} images of {size}² of each environment, {where}, {threads} threads")
    click.echo(tabulate(cells, header, disable_numparse=True))


def _entries(speeds: "Sequence[Speed]") -> list[dict[str, Any]]:
    """Return augmented inputs first; each way is compared to files read by "reader", augmented or plain as it is."""
    import attrs

    bases = {s.way.augmented: s for s in speeds if (s.way.images, s.way.prepare) == ("files", "reader")}
    names = ("low", "median", "high")
    return [
        {
            **attrs.asdict(speed.way),
            "images_per_second": dict(zip(names, speed.quartiles, strict=True)),
            "times_faster": dict(zip(names, speed.over(bases[speed.way.augmented]), strict=True)),
        }
        for speed in sorted(speeds, key=lambda speed: not speed.way.augmented)
    ]
