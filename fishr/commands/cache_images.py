"""``fishr cache images``."""

from pathlib import Path

import click

from fishr.commands.shared import (
    COUNT,
    PATH,
    data_dir_option,
    find_images,
    format_option,
    image_size_option,
    image_source_argument,
)


@click.command(
    short_help="Decode and resize images once.",
    epilog="Example: fishr cache images PACS -o data/pacs.h5 --size 224",
)
@image_source_argument
@click.option("-o", "--out", type=PATH, required=True, metavar="FILE", help="HDF5 file to make.")
@image_size_option
@click.option(
    "--workers",
    type=COUNT,
    metavar="N",
    help="Threads that decode (default: one a processor).",
)
@data_dir_option
@format_option
def images(source: str, out: Path, size: int, workers: int | None, data_dir: Path | None, style: str) -> None:
    """Decode and resize the images of a data set once, part by part.

    NAME_OR_PATH is one of `fishr data list`, a folder of ENVIRONMENT/CLASS/IMAGE, or a .csv, .json or .jsonl with
    environment, class and path of each image. Evaluation reads the same inputs from the file as from the
    images, which it does not need; training crops are cut out of the resized images. While it is made it takes its
    space twice. Killed, the same command goes on with it. A file made of the same is left as it is, one made of
    anything else is refused, and the first setting that differs is named.
    """
    import os

    from fishr.commands.cache_rendering import Bar
    from fishr.data.images import cache_images

    place = find_images(source, data_dir)
    with Bar(out) as bar:
        written = cache_images(place, out, size, workers or os.cpu_count() or 1, bar.update)
    _tell(out, written, style)


def _tell(out: Path, written: bool, style: str) -> None:
    import attrs

    from fishr.commands.rendering import as_json
    from fishr.data.caches import open_images

    cache = open_images(out)
    size = out.stat().st_size
    if style == "json":
        domains = [attrs.asdict(section) for section in cache.sections]
        told = {"file": str(out), "key": cache.key, "provenance": cache.provenance, "domains": domains}
        click.echo(as_json(told | {"bytes": size, "written": written}))
        return
    rows = sum(section.rows for section in cache.sections)
    what = (
        f"{len(cache.sections)} environments, {len(cache.classes)} classes, {rows} images of {cache.size} × "
        f"{cache.size} pixels, {size / 2**20:.1f} MiB"
    )
    click.echo(f"{out}: {what}" if written else f"{out}: is there already, made of the same; {what}")
