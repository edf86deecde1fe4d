"""Options that several commands share, and the experiments and images that arguments name."""

import gc
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from fishr.errors import InputError, one_line
from fishr.paths import DATA, typed_path

if TYPE_CHECKING:
    from fishr.data.images.image_environments import ImageSource
    from fishr.training import Experiment

Command = TypeVar("Command", bound=Callable[..., Any])
# Sections of options in a command's help, by the names of parameters.
_SECTIONS = {
    "Jobs of the benchmark": (
        "benchmark",
        "dataset",
        "algorithm",
        "algorithms",
        "test_envs",
        "hparams_seed",
        "trial_seed",
    ),
    "Options of many commands": ("data_dir", "device", "style", "logs", "overrides", "plugins"),
}


class _PathType(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] (click 8.2 has no type argument)
    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            return value if isinstance(value, Path) else typed_path(value)
        except InputError as error:
            self.fail(str(error), param, ctx)


class _FileType(_PathType):
    """A new file of one format: a suffix of another one is refused, because the command would write this one."""

    def __init__(self, format: str, *suffixes: str) -> None:
        super().__init__("file")
        self.format, self.suffixes = format, suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        if path.suffix and path.suffix.lower() not in self.suffixes:
            wanted = f"{' or '.join(self.suffixes)}, since the file is {self.format}"
            self.fail(f"{path}: got a name that ends in {path.suffix}, expected {wanted}", param, ctx)
        return path


class _Whole(click.IntRange):
    """A whole number that torch, numpy and HDF5 can hold."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if found >= 2**63:
            self.fail(f"got {found}, expected a whole number below 2^63", param, ctx)
        return found


class _ModuleType(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    name = "module"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not all(part.isidentifier() for part in value.split(".")):
            self.fail(f"got {one_line(value)!r}, expected the name of a Python module, such as mine", param, ctx)
        return value


# A path as it is typed: relative to the working directory.
PATH, FILE = _PathType("path"), _PathType("file")
HDF5_FILE, HTML_FILE = _FileType("HDF5", ".h5", ".hdf5"), _FileType("HTML", ".html", ".htm")
JSON_FILE = _FileType("JSON", ".json")
COUNT, SEED = _Whole(min=1), _Whole(min=0)


def choice_option(*names: str, words: Sequence[str], help: str) -> Callable[[Command], Command]:
    """Return an option that takes one of some words, by default the first."""
    return click.option(*names, type=click.Choice(words), default=words[0], help=help)


def repeatable_option(*names: str, help: str, **rest: Any) -> Callable[[Command], Command]:
    """Return an option that may be given several times."""
    return click.option(*names, multiple=True, help=f"{help}; repeatable.", **rest)


experiment_argument = click.argument("experiment", metavar="[RECIPE|FILE]", default="colored-digits")
data_dir_option = click.option("--data-dir", type=PATH, help="Folder of data files, such as MNIST/raw (default: data).")
image_source_argument = click.argument("source", metavar="NAME_OR_PATH")
image_size_option = click.option("--size", type=COUNT, default=224, metavar="PIXELS", help="Side of resized images.")
device_option = click.option("--device", default="auto", metavar="auto|cpu|cuda[:N]|mps", help="Device to compute on.")
format_option = choice_option(
    "--format", "style", words=["table", "json"], help="Output for people, or one JSON object."
)
set_option = repeatable_option(
    "--set", "overrides", metavar="A.B=VALUE", help="Change a setting, e.g. objective.penalty.fishr.schedule.after=300"
)
plugin_option = repeatable_option(
    "--plugin", "plugins", type=_ModuleType(), metavar="MODULE", help="Import your module that a configuration names"
)

log_option = repeatable_option(
    "--log",
    "logs",
    metavar="tensorboard|wandb|mlflow|MODULE:NAME",
    help="Also log all numbers live to this program",
)


class _Sectioned(click.Command):
    """A command whose help has sections of options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections = {title: list[tuple[str, str]]() for title in ("Options", *_SECTIONS)}
        for one in self.get_params(ctx):
            if isinstance(one, click.Option) and (record := one.get_help_record(ctx)):
                sections[next((title for title in _SECTIONS if one.name in _SECTIONS[title]), "Options")].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def about(summary: str, example: str, cls: type[click.Command] = _Sectioned) -> dict[str, Any]:
    """Return a command's line in the list of commands, the example below its help, and its class."""
    return {"short_help": summary, "epilog": f"Example: fishr {example}", "cls": cls}


def each_once(name: str, paths: Sequence[Path | None]) -> list[Path]:
    """Return the paths that are given, each of another place."""
    given = [path for path in paths if path is not None]
    # Path.resolve raises an error of its own for links that lead round in a circle.
    if len({os.path.realpath(path) for path in given}) < len(given):
        raise InputError(f"{name}: got one twice, expected each once")
    return given


def options(*several: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that adds several options in their order."""

    def add(command: Command) -> Command:
        for option in reversed(several):
            command = option(command)
        return command

    return add


run_options = options(data_dir_option, device_option, format_option, plugin_option)
experiment_options = options(data_dir_option, device_option, format_option, set_option, plugin_option)


@contextmanager
def loading() -> Generator[None]:
    """Pause the cyclic garbage collector, whose passes over the objects of modules take a fifth of their loading."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def given_parameters() -> list[click.Parameter]:
    """Return the parameters that the running command was given."""
    context = click.get_current_context()
    sources = [(one, context.get_parameter_source(one.name or "")) for one in context.command.params]
    return [one for one, source in sources if source is ParameterSource.COMMANDLINE]


def given_options(*names: str) -> list[str]:
    """Return those of some options that the running command was given, as words of a command line."""
    words = list[str]()
    for option in given_parameters():
        if option.name in names:
            spelled, value = max(option.opts, key=len), click.get_current_context().params[option.name]
            if isinstance(value, bool):
                words.append(spelled)
            else:
                words += [word for one in (value if option.multiple else [value]) for word in (spelled, str(one))]
    return words


def find_experiment(name: str, overrides: tuple[str, ...], plugins: tuple[str, ...]) -> "Experiment":
    """Return the experiment of a recipe or TOML file, with overrides ``a.b.c=value``."""
    from fishr.configuration import apply_overrides, load, structure, unstructure
    from fishr.protocols import recipes
    from fishr.training import Experiment

    known = recipes()
    if name in known:
        return structure(apply_overrides(unstructure(known[name]()), overrides), Experiment, plugins)
    if Path(name).suffix == ".toml" or Path(name).exists():
        return load(name, Experiment, overrides, plugins)
    close = get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else "give the path of a TOML file or one of the recipes"
    raise InputError(f"{name}: neither a recipe nor a file; {hint} (recipes: {', '.join(known)})")


def find_images(source: str, data_dir: Path | None) -> Path:
    """Return the path of images: of a data set of ``fishr data list`` in the data folder, or a path as typed."""
    from fishr.data.data_catalog import catalog, entry_of

    path, folder = typed_path(source), data_dir or DATA
    if source.lower() in {entry.kind.lower() for entry in catalog(folder)}:
        return entry_of(source, folder).folder or path
    if not path.exists() and (folder / path).exists():
        raise InputError(
            f"{path}: nothing is there, but {folder / path} is; a path on the command line starts at the working "
            f"directory, so give {folder / path}"
        )
    return path


def find_image_source(source: str, data_dir: Path | None, plugins: tuple[str, ...]) -> "Path | ImageSource":
    """Return the images that the data of a TOML file are made of, or the path that ``find_images`` returns."""
    if Path(source).suffix != ".toml":
        return find_images(source, data_dir)
    from fishr.data.images.image_environments import ImageSource

    found: Any = find_experiment(source, (), plugins).data
    while not isinstance(found, ImageSource):
        found = getattr(found, "source", None) or getattr(found, "data", None)
        if found is None:
            raise InputError(f"{source}: its data are no images, expected ImageFolders, ImageList or HuggingFaceImages")
    return found


def load_run(folder: Path, plugins: tuple[str, ...], overrides: tuple[str, ...] = ()) -> "Experiment":
    """Return the experiment of a run folder; its data need be known only where they are read."""
    from fishr.configuration.run_file import load_run_file

    if not (folder / "config.toml").is_file():
        raise InputError(f"{folder}: not a run folder, it has no config.toml; give the folder that train made")
    return load_run_file(folder / "config.toml", overrides, plugins)
