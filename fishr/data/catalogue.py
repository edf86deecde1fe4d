"""Which data sets there are, what they hold, and which are ready to be used."""

from difflib import get_close_matches
from pathlib import Path

from attrs import frozen

from fishr.data.benchmark_digits import ANGLES, COLOR_NAMES
from fishr.data.download import MIRROR
from fishr.data.images.folders import LAYOUT
from fishr.data.mnist import TEST_LABELS, TEST_PICTURES, mnist_files
from fishr.data.sources.benchmarks import IMAGE_SETS
from fishr.data.sources.image_set import ImageSet
from fishr.data.sources.inspection import is_laid
from fishr.errors import InputError

_IRM = ("flip 0.2", "flip 0.1", "reversed", "gray")


@frozen
class Entry:
    """One kind of data set.

    Args:
        kind: its class, as ``data.kind`` names it in a configuration; of a data set of images, its name.
        description: what it is.
        needs: which files, from where.
        ready: whether a run would find them.

    Example:
        >>> Entry("ColoredDigits", "digits", "nothing", ready=True).ready
        True
    """

    kind: str
    description: str
    needs: str
    ready: bool


@frozen
class Details:
    """More of one kind of data set.

    Args:
        entry: the kind.
        environments: their names; empty: one's own.
        classes: C; None: one's own.
        class_names: where they are few and fixed.
        origin: addresses.
        layout: of its files below the data folder.
        by_hand: how to lay them out oneself.
        folder: of its images; None: it is not a data set of image files.
        licence: where it is known.

    Example:
        >>> details("PACS", Path("data")).environments
        ('art_painting', 'cartoon', 'photo', 'sketch')
    """

    entry: Entry
    environments: tuple[str, ...] = ()
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    layout: str = ""
    by_hand: str = ""
    folder: Path | None = None
    licence: str = ""


def catalogue(data_dir: Path) -> tuple[Entry, ...]:
    """The data sets, with whether their files lie in a folder.

    Args:
        data_dir: where files are looked for.

    Example:
        >>> [entry.kind for entry in catalogue(Path("no-such-folder")) if entry.ready]
        ['ColoredDigits', 'Arrays', 'CachedFeatures', 'ImageFolders', 'ImageList']
    """
    return tuple(each.entry for each in _everything(data_dir))


def details(name: str, data_dir: Path) -> Details:
    """What is known of one data set.

    Args:
        name: its kind, whatever its case; "mnist" is ``DomainBedColoredMNIST``, which needs all of its files.
        data_dir: where files are looked for.

    Raises:
        InputError: there is no such data set.

    Example:
        >>> details("PACSS", Path("data"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: PACSS: no data set of that name; did you mean PACS? `fishr data list` shows all
    """
    by_name = {each.entry.kind.lower(): each for each in _everything(data_dir)}
    wanted = "domainbedcoloredmnist" if name.lower() == "mnist" else name.lower()
    if wanted in by_name:
        return by_name[wanted]
    close = get_close_matches(wanted, by_name, 1)
    hint = f"did you mean {by_name[close[0]].entry.kind}? " if close else ""
    raise InputError(f"{name}: no data set of that name; {hint}`fishr data list` shows all")


def _everything(data_dir: Path) -> tuple[Details, ...]:
    fetch_mnist = f"fishr data download mnist --data-dir {data_dir}"
    training, all_digits = _has_mnist(data_dir, test=False), _has_mnist(data_dir, test=True)
    return (
        Details(
            Entry("ColoredDigits", "scikit-learn's 8×8 digits whose colours lie", "nothing, it is embedded", True),
            environments=_IRM,
            classes=2,
            origin=("https://archive.ics.uci.edu/dataset/80",),
        ),
        _digits(
            Entry("ColoredMNIST", "MNIST by the IRM paper's protocol", f"MNIST/raw: {fetch_mnist}", training), _IRM, 2
        ),
        _digits(
            Entry(
                "DomainBedColoredMNIST",
                "all of MNIST in colours that lie, by DomainBed's protocol",
                f"MNIST/raw, all four files: {fetch_mnist}",
                all_digits,
            ),
            COLOR_NAMES,
            2,
        ),
        _digits(
            Entry(
                "RotatedMNIST",
                "all of MNIST, turned by six angles, by DomainBed's protocol",
                f"MNIST/raw, all four files: {fetch_mnist}",
                all_digits,
            ),
            tuple(f"{angle} degrees" for angle in ANGLES),
            10,
        ),
        *(_images(image_set, data_dir) for image_set in IMAGE_SETS.values()),
        Details(
            Entry("Arrays", "your own domains", "one .npz a domain, with inputs and labels", True),
            layout="FILE.npz, one a domain",
            by_hand="numpy.savez(path, inputs=..., labels=...)",
        ),
        Details(
            Entry("CachedFeatures", "features of a frozen network", "a file of fishr cache features", True),
            layout="FILE.h5",
            by_hand="fishr cache features RUN -o FILE.h5",
        ),
        Details(
            Entry("ImageFolders", "your own images in folders", f"a folder {LAYOUT}", True),
            layout=f"FOLDER/{LAYOUT}",
            by_hand="fishr data verify FOLDER says whether it is laid out well",
        ),
        Details(
            Entry("ImageList", "your own images in a list", "a .csv, .json or .jsonl", True),
            layout="FILE.csv with the header environment,class,path, or the same as .json or .jsonl",
            by_hand="fishr data verify FILE.csv says whether it is well written",
        ),
    )


def _digits(entry: Entry, environments: tuple[str, ...], classes: int) -> Details:
    by_hand = "copy torchvision's MNIST/raw folder"
    return Details(
        entry, environments, classes, origin=(MIRROR,), layout="MNIST/raw/FILE, each raw or .gz", by_hand=by_hand
    )


def _images(image_set: ImageSet, data_dir: Path) -> Details:
    folder = data_dir / image_set.folder
    given = "" if image_set.archives else " --archive FILE"
    needs = f"{image_set.folder}: fishr data download {image_set.name} --data-dir {data_dir}{given}"
    return Details(
        Entry(image_set.name, image_set.description, needs, is_laid(folder, image_set.environments)),
        environments=tuple(environment.folder for environment in image_set.environments),
        classes=image_set.classes,
        class_names=image_set.class_names,
        origin=tuple(dict.fromkeys((image_set.origin, *(archive.address for archive in image_set.archives)))),
        layout=image_set.layout,
        by_hand=image_set.by_hand,
        folder=folder,
        licence=image_set.licence,
    )


def _has_mnist(data_dir: Path, test: bool) -> bool:
    try:
        mnist_files(data_dir)
        if test:
            mnist_files(data_dir, TEST_PICTURES, TEST_LABELS)
    except InputError:
        return False
    return True
