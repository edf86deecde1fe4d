"""The catalog of data sets: what each holds, what it needs, and whether its files exist."""

from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from inspect import getdoc, signature
from pathlib import Path

import attrs
from attrs import frozen

from fishr import data
from fishr.data.domains import DataSet
from fishr.data.environments import EnvironmentSource
from fishr.data.images.folder_listing import LAYOUT
from fishr.data.mnist import ANGLES, COLOR_NAMES
from fishr.data.mnist_files import ALL, IMAGES, LABELS, MIRRORS, find_mnist
from fishr.data.sources.image_sets import IMAGE_SETS
from fishr.data.sources.layouts import is_arranged
from fishr.errors import InputError

_IRM = ("flip 0.2", "flip 0.1", "reversed", "gray")


@frozen
class Entry:
    """A data set of the catalog.

    Args:
        kind: Its class, as in ``data.kind`` of a configuration; of an image data set, its name.
        needs: The files that it needs, and how to get them.
        ready: Whether a run would find them.
        environments: Names of its environments; empty: your own.
        origin: Addresses of its publishers.
        layout: Paths of its files below the data folder.
        by_hand: How to lay them out by hand.
        folder: Folder of its images; None: it has no image files.

    Example:
        >>> entry_of("PACS", Path("data")).environments
        ('art_painting', 'cartoon', 'photo', 'sketch')
    """

    kind: str
    description: str
    needs: str
    ready: bool = True
    environments: tuple[str, ...] = ()
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    layout: str = ""
    by_hand: str = ""
    folder: Path | None = None
    license: str = ""


def catalog(data_dir: Path) -> tuple[Entry, ...]:
    """Return the data sets, and whether their files exist in a folder.

    Example:
        >>> {entry.kind: entry.ready for entry in catalog(Path("no-such-folder"))}["RotatedMNIST"]
        False
    """
    cached = "a file of fishr cache features RUN -o FILE.h5"
    entries = (
        Entry(
            "ColoredDigits",
            "scikit-learn's 8×8 digits with a spurious color",
            "nothing, it is embedded",
            environments=_IRM,
            classes=2,
            origin=("https://archive.ics.uci.edu/dataset/80",),
        ),
        _mnist("ColoredMNIST", "MNIST by the IRM paper's protocol", data_dir, _IRM, 2),
        _mnist("DomainBedColoredMNIST", "all of MNIST with a spurious color", data_dir, COLOR_NAMES, 2),
        _mnist("RotatedMNIST", "all of MNIST, rotated", data_dir, tuple(f"{angle} degrees" for angle in ANGLES), 10),
        *(_images(name, data_dir) for name in IMAGE_SETS),
        Entry("Arrays", "your own domains", 'one .npz a domain: numpy.savez("FILE.npz", inputs=..., labels=...)'),
        Entry("NumPyData", "your own arrays with a domain for each sample", "an .npz, or a folder of .npy files"),
        Entry("CachedFeatures", "features of a frozen network", cached),
        Entry("FeatureEnvironments", "features of a frozen network, as environments to hold out", cached),
        Entry("ImageFolders", "your own images in folders", f"a folder {LAYOUT}; check it: fishr data verify FOLDER"),
        Entry("ImageList", "your own images in a list", "a .csv, .json or .jsonl with columns of any names"),
        Entry(
            "HuggingFaceImages",
            "a data set of images of the Hugging Face hub",
            f"Parquet or Arrow files: fishr data download hf:OWNER/NAME --data-dir {data_dir}",
        ),
    )
    return (*entries, *_others({entry.kind for entry in entries}))


catalogue = catalog  # the spelling before 0.2


def entry_of(name: str, data_dir: Path) -> Entry:
    """Return the entry of a data set by its kind, in any case; "mnist" is the one that needs all of MNIST's files."""
    by_name = {entry.kind.lower(): entry for entry in catalog(data_dir)}
    lower = "domainbedcoloredmnist" if name.lower() == "mnist" else name.lower()
    if lower in by_name:
        return by_name[lower]
    close = get_close_matches(lower, by_name, 1)
    hint = f"did you mean {by_name[close[0]].kind}? " if close else ""
    raise InputError(f"{name}: no data set of that name; {hint}`fishr data list` shows all")


def _others(listed: set[str]) -> Iterator[Entry]:
    """Describe exported data sets without an entry by their docstrings."""
    for kind in (name for name in data.__all__ if name not in listed):
        found = getattr(data, kind)
        if not attrs.has(found):
            continue
        # Those that have data of their own, such as HeldOut, are views of another data set.
        view = any(field.type in (DataSet, EnvironmentSource) for field in attrs.fields(found))
        if not view and list(signature(found.__call__).parameters) == ["self", "seed", "data_dir"]:
            yield Entry(kind, (getdoc(found) or kind).splitlines()[0].rstrip("."), f"see help(fishr.data.{kind})")


def _mnist(kind: str, description: str, data_dir: Path, environments: tuple[str, ...], classes: int) -> Entry:
    whole, ready = kind != "ColoredMNIST", False
    with suppress(InputError):
        ready = bool(find_mnist(data_dir, ALL if whole else (IMAGES, LABELS)))
    return Entry(
        kind,
        description + (", by DomainBed's protocol" if whole else ""),
        f"MNIST/raw{', all four files' if whole else ''}: fishr data download mnist --data-dir {data_dir}",
        ready,
        environments,
        classes,
        origin=MIRRORS,
        layout="MNIST/raw/FILE, each raw or .gz",
        by_hand="copy torchvision's MNIST/raw folder",
    )


def _images(name: str, data_dir: Path) -> Entry:
    image_set = IMAGE_SETS[name]
    folder = data_dir / image_set.folder
    archive = "" if image_set.archives else " --archive FILE"
    table = image_set.table and f"https://huggingface.co/datasets/{image_set.table} (a table, in another order)"
    return Entry(
        name,
        image_set.description,
        f"{image_set.folder}: fishr data download {name} --data-dir {data_dir}{archive}",
        is_arranged(folder, image_set.environments),
        tuple(environment.folder for environment in image_set.environments),
        image_set.classes,
        image_set.class_names,
        tuple(filter(None, (image_set.origin, *image_set.archives.values(), *image_set.mirrors.values(), table))),
        image_set.layout,
        image_set.by_hand,
        folder,
        image_set.license,
    )
