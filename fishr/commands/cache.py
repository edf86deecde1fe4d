"""``fishr cache``."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.commands.progress import parts_bar
from fishr.commands.shared import (
    COUNT,
    FILE,
    HDF5_FILE,
    about,
    choice_option,
    data_dir_option,
    experiment_options,
    find_experiment,
    find_image_source,
    format_option,
    given_options,
    image_size_option,
    image_source_argument,
    load_run,
    loading,
    plugin_option,
    repeatable_option,
)
from fishr.errors import InputError

if TYPE_CHECKING:
    from fishr.data.caches import Description
    from fishr.data.images.preprocessing import Interpolation
    from fishr.training import Experiment

out_option = click.option("-o", "--out", type=HDF5_FILE, required=True, help="HDF5 file to write.")
domain_option = repeatable_option("--domain", "domains", metavar="NAME", help="Cache this domain only (default: all)")
chunk_option = click.option(
    "--chunk", type=COUNT, default=8192, metavar="N", help="Samples of one pass; fewer need less memory."
)


@click.group(
    **about(
        "Write features, gradients and images to HDF5 files.", "cache features runs/fishr -o features.h5", click.Group
    )
)
def cache() -> None:
    """Write features, gradients and images to HDF5 files, which need neither the data nor the network."""


@cache.command(**about("Compute a run's features once.", "cache features runs/fishr -o features.h5 --dtype float16"))
@click.argument("source", metavar="RUN_OR_RECIPE")
@out_option
@choice_option("--dtype", words=["float32", "float16"], help="Type of the stored features; float16 halves the file.")
@click.option("--at", metavar="LAYER", help="Store the outputs of this layer of the featurizer, e.g. blocks.4.")
@domain_option
@chunk_option
@experiment_options
def features(source: str, out: Path, dtype: Any, at: str | None, style: str, **options: Any) -> None:
    """Compute features, logits and labels of each domain once, part by part.

    RUN_OR_RECIPE is a run folder, whose last checkpoint has the weights, or a recipe or TOML file, for the first
    weights of its seed. `fishr train --on-features` then trains the head alone.

    With --at, the file has the outputs of a layer, and `fishr train --on-features` trains the layers above it and the
    head. LAYER is a name in the featurizer, or the end of a name if that is unique.

    After an interruption, the same command resumes. An existing file of the same settings is kept; one of other
    settings is refused, with the first setting that differs.
    """
    with loading():
        from fishr.analysis.cache_writing import cache_features, featured_experiment
        from fishr.analysis.layer_caching import cache_layer, layer_outputs

    experiment, folder, reading = _source(source, **options)
    if at is not None:
        outputs = layer_outputs(experiment, at, folder, **reading)
        with writing(out, style) as progress:
            cache_layer(outputs, out, dtype, progress)
        return
    featured = featured_experiment(experiment, folder, **reading)
    with writing(out, style) as progress:
        cache_features(featured, out, dtype, progress)


@cache.command(**about("Write the gradients of a run's head.", "cache gradients features.h5 -o gradients.h5"))
@click.argument("source", metavar="RUN_OR_FILE")
@out_option
@click.option("--per-sample", is_flag=True, help="Store the gradient of each sample by each parameter; large.")
@domain_option
@chunk_option
@experiment_options
def gradients(source: str, out: Path, per_sample: bool, style: str, **options: Any) -> None:
    """Write the gradient statistics of a head, or the numbers that give them.

    For a linear head these are factors, features and the derivatives of the loss by the logits, which give every
    per-sample gradient; for other heads they are means and variances in each domain. RUN_OR_FILE is a run folder, a
    feature cache (which allows no other settings), a recipe or a TOML file.
    """
    with loading():
        from fishr.analysis.cache_writing import cache_gradients, featured_cache, featured_experiment

    if Path(source).is_file() and Path(source).suffix != ".toml":
        if given := given_options("domains", "chunk", "data_dir", "overrides"):
            raise InputError(f"{given[0]}: got it together with a feature cache, whose rows are computed; drop one")
        featured = featured_cache(Path(source), options["device"], options["plugins"])
    else:
        experiment, folder, reading = _source(source, **options)
        featured = featured_experiment(experiment, folder, **reading)
    with writing(out, style) as progress:
        cache_gradients(featured, out, per_sample, progress)


@cache.command(**about("Decode and resize images once.", "cache images PACS -o data/pacs.h5 --size 224"))
@image_source_argument
@out_option
@image_size_option
@choice_option("--interpolation", words=["bilinear", "bicubic", "lanczos", "nearest"], help="How images are resized.")
@click.option("--antialias/--no-antialias", default=True, help="Average over merged pixels (default), or do not.")
@click.option("--workers", type=COUNT, metavar="N", help="Threads that decode (default: one per processor).")
@data_dir_option
@format_option
@plugin_option
def images(
    source: str,
    out: Path,
    size: int,
    interpolation: "Interpolation",
    antialias: bool,
    workers: int | None,
    data_dir: Path | None,
    style: str,
    plugins: tuple[str, ...],
) -> None:
    """Decode and resize the images of a data set once, part by part.

    NAME_OR_PATH is a name of `fishr data list`, a folder of ENVIRONMENT/CLASS/IMAGE, a .csv, .json or .jsonl with
    environment, class and path of each image, or the TOML file of an experiment, for images in any columns or in a
    table, with its own preprocessing. The file replaces the images: evaluation reads the same inputs from it;
    training crops are cut out of the resized images. While it is written it takes twice its space. After a kill, the
    same command resumes. An existing file made of the same settings is kept; one made of other settings is refused with
    the first setting that differs.
    """
    with loading():
        from fishr.data.images import Preprocessing, cache_images

    preprocessing = Preprocessing(size, interpolation=interpolation, antialias=antialias)
    place = find_image_source(source, data_dir, plugins)
    if not isinstance(place, Path):
        if given := given_options("size", "interpolation", "antialias"):
            raise InputError(f"{given[0]}: got it together with {source}, which has its own preprocessing; drop one")
        preprocessing = place.preprocessing or Preprocessing(place.size)
    with writing(out, style) as progress:
        cache_images(place, out, preprocessing, workers or os.cpu_count() or 1, progress, data_dir)


@cache.command(**about("Describe a file.", "cache info features.h5 --format json"))
@click.argument("file", type=FILE)
@format_option
def info(file: Path, style: str) -> None:
    """Print what a file of any kind holds, and what it was made of."""
    from fishr.data.caches import describe
    from fishr.files import json_text

    description = describe(file)
    click.echo(json_text(_as_object(file, description)) if style == "json" else _as_text(file, description))


@cache.command(**about("Check every byte of a file.", "cache verify features.h5"))
@click.argument("file", type=FILE)
def verify(file: Path) -> None:
    """Read every byte of a file of any kind, and compare it with what was written."""
    from fishr.data.caches import describe, verify

    with parts_bar("part", f"{file}: interrupted") as progress:
        problems = verify(file, progress)
    if problems:
        raise InputError(f"{file}: damaged ({'; '.join(problems)}); make it again")
    click.echo(f"{file}: every byte of its {len(describe(file).elements)} data sets is as it was written")


@cache.command(**about("Merge feature caches.", "cache merge photo.h5 sketch.h5 -o features.h5"))
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE FILE...")
@out_option
@format_option
def merge(files: tuple[Path, ...], out: Path, style: str) -> None:
    """Merge feature caches that differ only in their domains into one file, training domains first."""
    with loading():
        from fishr.data.caches import merge_features

    with writing(out, style) as progress:
        merge_features(files, out, progress)


@contextmanager
def writing(out: Path, style: str) -> Generator[Callable[[int, int], object]]:
    """Show a bar while a file is written, then print what it holds; an interruption prints how to resume."""
    from fishr.data.caches import describe
    from fishr.files import json_text

    existed = out.exists()
    with parts_bar("row", f"{out}: interrupted; the same command resumes it", many=True) as progress:
        yield partial(progress, "")
    description = describe(out)
    if style == "json":
        found = _as_object(out, description) | {"written": not existed}
        del found["elements"]
        click.echo(json_text(found))
        return
    rows = sum(section.rows for section in description.sections)
    what = f"{len(description.sections)} domains, {rows} rows"
    if description.header.kind == "fishr-images":
        size, classes = description.provenance["size"], len(description.provenance["classes"])
        what = f"{len(description.sections)} environments, {classes} classes, {rows} images of {size} × {size} pixels"
    what = f"{what}, {description.bytes / 2**20:.1f} MiB"
    click.echo(f"{out}: is there already, made of the same; {what}" if existed else f"{out}: {what}")


def _source(
    source: str, overrides: tuple[str, ...], plugins: tuple[str, ...], **reading: Any
) -> "tuple[Experiment, Path | None, dict[str, Any]]":
    """Return the experiment of a run or recipe, the run folder, and the options of its data."""
    folder = Path(source)
    if not folder.is_dir() or folder.suffix == ".toml":
        return find_experiment(source, overrides, plugins), None, reading
    return load_run(folder, plugins, overrides), folder, reading


def _as_object(file: Path, description: "Description") -> dict[str, Any]:
    import attrs

    found = attrs.asdict(description)
    header, sections = found.pop("header"), found.pop("sections")
    return {"file": str(file), **header, **found, "domains": sections}


def _as_text(file: Path, description: "Description") -> str:
    from tabulate import tabulate

    header = description.header
    lines = [f"{file}: {header.kind}, version {header.version}, {description.bytes / 2**20:.1f} MiB"]
    facts = {"key": description.key, **description.provenance}
    lines += [f"  {name}: {_short(value)}" for name, value in facts.items() if value is not None]
    domains = [(section.title, section.split, section.rows) for section in description.sections]
    elements = [
        (element.name, element.encoding, element.type, "×".join(map(str, element.shape)) or "1")
        for element in description.elements
        if not element.name.startswith("/provenance/")
    ]
    tables = [tabulate(domains, ("domain", "split", "rows"), disable_numparse=True)] if domains else []
    tables.append(tabulate(elements, ("element", "encoding", "type", "shape"), disable_numparse=True))
    return "\n\n".join(["\n".join(lines), *tables])


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    lines = str(value).split("\n")
    return lines[0] if len([line for line in lines if line]) <= 1 else f"{len(lines) - 1} lines of TOML"
