"""``fishr cache``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.commands.cache_images import images
from fishr.commands.cache_rendering import Bar, as_object, as_text, tell
from fishr.commands.shared import (
    COUNT,
    PATH,
    data_dir_option,
    device_option,
    find_experiment,
    format_option,
    plugin_option,
    set_option,
)
from fishr.errors import InputError

if TYPE_CHECKING:
    from fishr.analysis.feature_caching import Featured

out_option = click.option("-o", "--out", type=PATH, required=True, metavar="FILE", help="HDF5 file to make.")
domain_option = click.option(
    "--domain", "domains", multiple=True, metavar="NAME", help="Cache this domain alone (default: all); repeatable."
)
chunk_option = click.option(
    "--chunk",
    type=COUNT,
    default=8192,
    show_default=True,
    metavar="N",
    help="Rows in one pass through the featurizer; fewer need less memory.",
)


@click.group(
    short_help="Keep features and gradients in HDF5 files.",
    epilog="Example: fishr cache features runs/fishr -o features.h5",
)
def cache() -> None:
    """Keep features and gradients in HDF5 files that need neither the data nor the network."""


cache.add_command(images)


@cache.command(
    short_help="Compute a run's features once.",
    epilog="Example: fishr cache features runs/fishr -o features.h5 --dtype float16",
)
@click.argument("source", metavar="RUN_OR_RECIPE")
@out_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="In which features are stored; float16 halves the file.",
)
@domain_option
@chunk_option
@data_dir_option
@device_option
@format_option
@set_option
@plugin_option
def features(source: str, out: Path, dtype: Any, style: str, **options: Any) -> None:
    """Compute features, logits and labels of each domain once, part by part.

    RUN_OR_RECIPE is a run folder, whose last checkpoint has the weights, or a recipe or TOML file, of which the
    seed's first weights are taken. Killed, the same command goes on with it. A file made of the same is left as it
    is, one made of anything else is refused, and the first setting that differs is named.
    """
    from fishr.analysis.feature_caching import cache_features

    featured = _featured(source, **options)
    with Bar(out, featured) as bar:
        written = cache_features(featured, out, dtype, bar.update)
    tell(out, written, style)


@cache.command(
    short_help="Keep the gradients of a run's head.",
    epilog="Example: fishr cache gradients features.h5 -o gradients.h5",
)
@click.argument("source", metavar="RUN_OR_FILE")
@out_option
@click.option("--per-sample", is_flag=True, help="Keep the gradient of each sample by each parameter; large.")
@domain_option
@chunk_option
@data_dir_option
@device_option
@format_option
@set_option
@plugin_option
def gradients(source: str, out: Path, per_sample: bool, style: str, **options: Any) -> None:
    """Keep what the head's gradient statistics follow from.

    Of a linear head these are its factors, features and the loss's derivative by the logits, from which every
    per-sample gradient follows; of any other head means and variances in each domain. RUN_OR_FILE is a run folder, a
    feature cache (other options then do not apply), a recipe or a TOML file.
    """
    from fishr.analysis.feature_caching import featured_cache
    from fishr.analysis.gradient_caching import cache_gradients

    if Path(source).is_file() and Path(source).suffix != ".toml":
        _refuse_beside_file("domain", "chunk", "data_dir", "set", "plugin")
        featured = featured_cache(Path(source), options["device"])
    else:
        featured = _featured(source, **options)
    with Bar(out, featured) as bar:
        written = cache_gradients(featured, out, per_sample, bar.update)
    tell(out, written, style)


@cache.command(short_help="Say what a file holds.", epilog="Example: fishr cache info features.h5 --format json")
@click.argument("file", type=PATH, metavar="FILE")
@format_option
def info(file: Path, style: str) -> None:
    """Say what a file of any kind holds, and what it was made of."""
    from fishr.commands.rendering import as_json
    from fishr.data.caches import describe

    description = describe(file)
    click.echo(as_json(as_object(file, description)) if style == "json" else as_text(file, description))


@cache.command(short_help="Read every byte of a file.", epilog="Example: fishr cache verify features.h5")
@click.argument("file", type=PATH, metavar="FILE")
def verify(file: Path) -> None:
    """Read every byte of a file of any kind, and compare it with what was written."""
    from fishr.data.caches import describe, verify

    problems = verify(file)
    if problems:
        raise InputError(f"{file}: damaged ({'; '.join(problems)}); make it again")
    found = describe(file)
    click.echo(f"{file}: every byte of its {len(found.elements)} data sets is as it was written")


@cache.command(
    short_help="Put feature caches together.",
    epilog="Example: fishr cache merge photo.h5 sketch.h5 -o features.h5",
)
@click.argument("files", type=PATH, nargs=-1, required=True, metavar="FILE FILE...")
@out_option
@format_option
def merge(files: tuple[Path, ...], out: Path, style: str) -> None:
    """Put feature caches that differ in their domains alone into one file, training domains first."""
    from fishr.data.caches import merge_features

    existed = out.exists()
    with Bar(out) as bar:
        merge_features(files, out, bar.update)
    tell(out, not existed, style)


def _featured(
    source: str,
    domains: tuple[str, ...],
    chunk: int,
    data_dir: Path | None,
    device: str,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
) -> "Featured":
    from fishr.analysis.feature_caching import featured_experiment
    from fishr.configuration import load
    from fishr.training import Experiment

    folder = Path(source)
    if not folder.is_dir() or folder.suffix == ".toml":
        folder, experiment = None, find_experiment(source, overrides, plugins)
    elif (folder / "config.toml").is_file():
        experiment = load(folder / "config.toml", Experiment, overrides, plugins)
    else:
        raise InputError(f"{folder}: not a run folder, it has no config.toml; give the folder that train made")
    return featured_experiment(experiment, folder, data_dir=data_dir, device=device, domains=domains, chunk=chunk)


def _refuse_beside_file(*names: str) -> None:
    from click.core import ParameterSource

    context = click.get_current_context()
    for parameter in context.command.params:
        option = parameter.opts[0].removeprefix("--").replace("-", "_")
        given = context.get_parameter_source(str(parameter.name)) is not ParameterSource.DEFAULT
        if option in names and given:
            raise InputError(
                f"{parameter.opts[0]}: got it together with a feature cache, whose rows are computed; drop one of them"
            )
