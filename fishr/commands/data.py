"""``fishr data``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fishr.commands.progress import bar_class, parts_bar
from fishr.commands.shared import (
    FILE,
    PATH,
    about,
    find_experiment,
    find_image_source,
    format_option,
    loading,
    plugin_option,
    repeatable_option,
)
from fishr.errors import InputError, RunFailed

if TYPE_CHECKING:
    from fishr.data.data_catalog import Entry
    from fishr.data.sources import Contents

SHOWN = 3
_COLUMNS = 12  # classes that a table shows one by one
HUB = "hf:"
folder_option = click.option("--data-dir", type=PATH, default=Path("data"), help="Folder of data sets.")


@click.group(epilog="Example: fishr data list")
def data() -> None:
    """List the data sets, get one, or check its files."""


@data.command("list", **about("List the data sets.", "data list --data-dir data"))
@folder_option
@format_option
def list_data(data_dir: Path, style: str) -> None:
    """List the data sets, what each needs, and whether its files exist."""
    import attrs
    from tabulate import tabulate

    from fishr.data import catalog
    from fishr.files import json_text

    shown = attrs.filters.include("kind", "description", "needs", "ready")
    entries = [attrs.asdict(entry, filter=shown) for entry in catalog(data_dir)]
    rows = [entry | {"ready": "yes" if entry["ready"] else "no"} for entry in entries]
    click.echo(json_text(entries) if style == "json" else tabulate(rows, headers="keys"))


@data.command(**about("Describe a data set.", "data info PACS --data-dir data"))
@click.argument("name", metavar="NAME_OR_FILE")
@folder_option
@format_option
@plugin_option
def info(name: str, data_dir: Path, style: str, plugins: tuple[str, ...]) -> None:
    """Show the description of a data set, the layout of its files, and the images that exist.

    NAME_OR_FILE is one of `fishr data list`; a folder ENVIRONMENT/CLASS/IMAGE or a list of images, which are counted;
    or the TOML file of an experiment, whose domains, samples and classes are shown, whatever its data are.
    """
    if Path(name).suffix == ".toml":
        _show_domains(name, data_dir, style, plugins)
        return
    import attrs

    from fishr.data.data_catalog import entry_of
    from fishr.data.images.image_data import list_images
    from fishr.data.sources.verifying import contents_of
    from fishr.files import json_text

    try:
        found = entry_of(name, data_dir)
    except InputError:
        if not Path(name).exists():
            raise
        _show_images(name, style)
        return
    contents, problem = (), ""
    if found.folder and found.folder.exists():
        try:
            contents = contents_of(list_images(found.folder))
        except InputError as error:
            problem = str(error)
    images = _counts(contents)
    folder = None if found.folder is None else str(found.folder)
    known = {**attrs.asdict(found), "folder": folder, "images": images, "problem": problem or None}
    click.echo(json_text(known) if style == "json" else _text(found, contents, problem))


@data.command(**about("Download a data set.", "data download PACS --data-dir data --archive PACS.zip"))
@click.argument("name")
@folder_option
@repeatable_option("--archive", "archives", type=FILE, help="Your own zip or tar file, in place of the published one")
@click.option("--duplicates", type=FILE, help="File of images to leave out, one ENVIRONMENT/CLASS/IMAGE a line.")
def download(name: str, data_dir: Path, archives: tuple[Path, ...], duplicates: Path | None) -> None:
    """Download a data set, check its files and lay them out; existing files are kept.

    NAME is mnist, one of `fishr data list`, or hf:OWNER/NAME for a data set of the Hugging Face hub, which goes to the
    folder huggingface/OWNER/NAME. Archives are kept in the folder archives below the data folder, with their SHA-256
    sums in SHA256SUMS. Where a file has two sources, the second is tried after the first; a note names the one that
    served. After an interruption, the same command resumes.
    """
    with loading():
        from fishr.data import download_mnist
        from fishr.data.data_catalog import entry_of
        from fishr.data.mnist_files import MIRROR
        from fishr.data.sources import IMAGE_SETS, install

    if name.startswith(HUB):
        if archives or duplicates:
            raise InputError(
                f"{name}: --archive and --duplicates are for data sets of `fishr data list`; leave them out"
            )
        _download_table(name.removeprefix(HUB), data_dir)
        return
    found = entry_of(name, data_dir)
    if MIRROR in found.origin:
        if archives or duplicates:
            raise InputError(f"{name}: --archive and --duplicates are for data sets of images; {found.by_hand} instead")
        with parts_bar("B", f"{name}: interrupted; the same command resumes the download", many=True) as progress:
            paths = download_mnist(data_dir, _note, progress)
        for path in paths:
            click.echo(path)
        return
    if found.folder is None:
        raise InputError(f"{found.kind}: there is nothing to download; it needs {found.needs}")
    with parts_bar("B", f"{name}: interrupted; the same command resumes the download", many=True) as progress:
        installed = install(IMAGE_SETS[found.kind], data_dir, archives, duplicates, progress=progress, report=_note)
    for path, digest in installed.sums:
        click.echo(f"{digest}  {path}")
    for note in installed.notes:
        _note(note)
    click.echo(installed.folder if installed.sums else f"{installed.folder}: exists already")


@data.command(**about("Read every file of a data set.", "data verify PACS --data-dir data"))
@click.argument("source", metavar="PATH_OR_NAME")
@folder_option
@plugin_option
def verify(source: str, data_dir: Path, plugins: tuple[str, ...]) -> None:
    """Check the layout of a data set, and that each of its images can be read.

    PATH_OR_NAME is one of `fishr data list`, a folder ENVIRONMENT/CLASS/IMAGE, a list of images, or the TOML file of an
    experiment, for images in any columns or in a table. The command
    prints a table of images by class and environment, the number of files that were passed over, and notes on doubts.
    If images cannot be read, it prints their paths instead, one a line.
    """
    with loading():
        from fishr.data.data_catalog import entry_of
        from fishr.data.mnist_files import MIRROR, verify_mnist
        from fishr.data.sources import IMAGE_SETS, verify_images

    expected, found = None, None
    place = find_image_source(source, data_dir, plugins) if Path(source).suffix == ".toml" else Path(source)
    try:
        found = None if os.sep in source or not isinstance(place, Path) else entry_of(source, data_dir)
    except InputError:
        if not Path(source).exists():
            raise
    if found is not None:
        if MIRROR in found.origin:
            for path in verify_mnist(data_dir):
                click.echo(f"{path}: as published")
            return
        if found.folder is None:
            raise InputError(f"{found.kind}: it has no images to verify; give the path of a folder or list")
        expected, place = IMAGE_SETS[found.kind], found.folder
    with parts_bar("image", f"{source}: interrupted") as progress:
        verified = verify_images(place, expected, lambda done, total: progress("reading", done, total), data_dir)
    if verified.unreadable:
        for each in verified.unreadable:
            click.echo(each.path)
        shown = ", ".join(f"{each.path} ({each.reason})" for each in verified.unreadable[:SHOWN])
        more = ", …" if len(verified.unreadable) > SHOWN else ""
        raise InputError(f"{len(verified.unreadable)} of {verified.images} images cannot be read: {shown}{more}")
    click.echo(_table(verified.contents, passed_over=True) + "\n")
    for note in verified.notes:
        _note(note)
    click.echo(f"{place if isinstance(place, Path) else source}: all {verified.images} images can be read")


def _show_images(place: str, style: str) -> None:
    """Show the numbers of images of a folder or list."""
    from fishr.data.images.image_data import list_images
    from fishr.data.sources.verifying import contents_of
    from fishr.files import json_text

    contents = contents_of(list_images(Path(place)))
    click.echo(json_text({"source": place, "images": _counts(contents)}) if style == "json" else _table(contents))


def _counts(contents: "tuple[Contents, ...]") -> dict[str, dict[str, int]]:
    return {each.environment: dict(each.classes) for each in contents}


def _show_domains(file: str, data_dir: Path, style: str, plugins: tuple[str, ...]) -> None:
    """Show the domains of an experiment's data."""
    with loading():
        from tabulate import tabulate

        from fishr.files import json_text

    experiment = find_experiment(file, (), plugins)
    domains = experiment.data(experiment.seed, data_dir)
    columns = domains.label_columns
    names = () if columns is not None else domains.class_names or tuple(map(str, range(domains.classes)))
    rows = [
        (one.name, one.environment, split, len(one.labels), one.class_counts(len(names)).tolist() if names else [])
        for one, split in domains.by_split
    ]
    kind, header = type(experiment.data).__name__, ("domain", "environment", "split", "samples")
    if style == "json":
        entries = [
            dict(zip((*header, "classes"), (*row[:4], dict(zip(names, row[4], strict=True))), strict=True))
            for row in rows
        ]
        click.echo(json_text({"data": kind, "input": list(domains.shape), "domains": entries}))
        return
    labels = f"{len(names)} classes" if names else f"{columns} number{'s' * (columns != 1)} a sample"
    click.echo(f"{file}: {kind}, inputs {' × '.join(map(str, domains.shape))}, {labels}")
    if len(names) > _COLUMNS:
        names = ("classes", "fewest of a class", "most of a class")
        rows = [(*row[:4], [sum(map(bool, row[4])), min(filter(None, row[4]), default=0), max(row[4])]) for row in rows]
    click.echo(tabulate([(*row[:4], *row[4]) for row in rows], (*header, *names), disable_numparse=[0, 1]))


def _download_table(name: str, data_dir: Path) -> None:
    from fishr.data.sources.hub_tables import download_table

    try:
        folder, new = download_table(name, data_dir, bar_class())
    except KeyboardInterrupt:
        raise RunFailed(f"{HUB}{name}: interrupted; the same command resumes the download") from None
    click.echo(folder if new else f"{folder}: exists already")
    _note(f'use it with kind = "HuggingFaceImages", path = "{name}"')


def _note(line: str) -> None:
    click.echo(f"note: {line}")


def _text(found: "Entry", contents: "tuple[Contents, ...]", problem: str) -> str:
    classes = "" if found.classes is None else str(found.classes)
    facts = {
        "environments": ", ".join(found.environments),
        "classes": classes + (f" ({', '.join(found.class_names)})" if found.class_names else ""),
        "from": "\n    ".join(found.origin),
        "files": found.layout,
        "by hand": found.by_hand,
        "license": found.license,
        "needs": found.needs,
        "ready": "yes" if found.ready else "no",
        "problem": problem,
    }
    lines = [f"{found.kind}: {found.description}"]
    lines += [f"  {name}: {value}" for name, value in facts.items() if value]
    if contents:
        lines += ["", _table(contents)]
    return "\n".join(lines)


def _table(contents: "tuple[Contents, ...]", passed_over: bool = False) -> str:
    """Numbers of images by class and environment."""
    from tabulate import tabulate

    names = sorted({name for each in contents for name in each.classes})
    rows = [(name, *(each.classes.get(name, 0) for each in contents)) for name in names]
    rows.append(("all", *(each.images for each in contents)))
    if passed_over:
        rows.append(("passed over", *(each.passed_over for each in contents)))
    return tabulate(rows, ("images", *(each.environment for each in contents)), disable_numparse=[0])
