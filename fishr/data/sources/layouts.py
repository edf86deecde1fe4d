"""Laying out what an archive held as ENVIRONMENT/CLASS/IMAGE: from an unpacked folder to a laid one."""

import filecmp
from collections.abc import Iterator
from pathlib import Path

from fishr.data.images.scanning import is_meant
from fishr.data.sources.image_set import Environment
from fishr.errors import InputError

SPLITS = ("train", "crossval", "test")
WHOLE = "full"


def lay_folders(unpacked: Path, laid: Path, environments: tuple[Environment, ...]) -> tuple[str, ...]:
    """Move each environment's folder, wherever it lies in what was unpacked.

    Args:
        unpacked: what the archives held; its folders are moved away.
        laid: an empty folder on the same disk.
        environments: whose folders are looked for.

    Returns:
        Nothing to say.

    Raises:
        InputError: an environment's folder is not there, or two are.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     unpacked, laid = Path(folder, "unpacked"), Path(folder, "laid")
        ...     laid.mkdir()
        ...     (unpacked / "kfold" / "photo" / "dog").mkdir(parents=True)
        ...     lay_folders(unpacked, laid, (Environment("photo", "P"),))
        ...     (laid / "photo" / "dog").is_dir()
        ()
        True
    """
    for environment, folder in find_environments(unpacked, environments).items():
        folder.rename(laid / environment.folder)
    return ()


def lay_splits(unpacked: Path, laid: Path, environments: tuple[Environment, ...]) -> tuple[str, ...]:
    """Merge the train, crossval and test folders of each environment, class by class.

    An environment that has a folder "full", or classes without splits, is taken as it is. Two images of the same name
    and class keep one copy where their bytes agree; otherwise the second is called as its split, then its name.

    Args:
        unpacked: what the archive held; its files are moved away.
        laid: an empty folder on the same disk.
        environments: whose folders are looked for.

    Returns:
        How many images are there twice or were renamed, where there are such.

    Raises:
        InputError: an environment's folder is not there, or two are.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     unpacked, laid = Path(folder, "unpacked"), Path(folder, "laid")
        ...     laid.mkdir()
        ...     for split in ("train", "test"):
        ...         (unpacked / "SUN" / split / "dog").mkdir(parents=True)
        ...         (unpacked / "SUN" / split / "dog" / f"{split}.jpg").touch()
        ...     lay_splits(unpacked, laid, (Environment("SUN09", "S", also=("SUN",)),))
        ...     sorted(path.name for path in (laid / "SUN09" / "dog").iterdir())
        ()
        ['test.jpg', 'train.jpg']
    """
    notes = list[str]()
    for environment, folder in find_environments(unpacked, environments).items():
        target = laid / environment.folder
        parts = {part.name.lower(): part for part in folders_of(folder)}
        splits = [parts[name] for name in SPLITS if name in parts]
        if not splits or WHOLE in parts:
            parts.get(WHOLE, folder).rename(target)
            continue
        twice, renamed = 0, 0
        for split in splits:
            for class_ in folders_of(split):
                (target / class_.name).mkdir(parents=True, exist_ok=True)
                for image in files_of(class_):
                    place = target / class_.name / image.name
                    if place.exists() and filecmp.cmp(place, image, shallow=False):
                        twice += 1
                        continue
                    renamed += place.exists()
                    while place.exists():
                        place = place.with_name(f"{split.name}_{place.name}")
                    image.rename(place)
        if twice:
            notes.append(f"{environment.folder}: {twice} images lie in two splits, one copy was taken")
        if renamed:
            notes.append(f"{environment.folder}: {renamed} images of a name that another split has were renamed")
    return tuple(notes)


def find_environments(unpacked: Path, environments: tuple[Environment, ...]) -> dict[Environment, Path]:
    """The folder of each environment, the one that lies least deep.

    Args:
        unpacked: where to look.
        environments: whose folders are looked for.

    Returns:
        In the environments' order.

    Raises:
        InputError: an environment's folder is not there, or two are equally deep.

    Example:
        >>> find_environments(Path("no-such-folder"), (Environment("photo", "P"),))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: what was unpacked has no folder photo; expected one for each ...
    """
    found = dict[Environment, Path]()
    for folder in _by_depth(unpacked):
        for environment in environments:
            if environment.is_called(folder.name):
                first = found.setdefault(environment, folder)
                if first != folder and len(first.parts) == len(folder.parts):
                    raise InputError(
                        f"what was unpacked has two folders for {environment.folder}: "
                        f"{first.relative_to(unpacked)} and {folder.relative_to(unpacked)}; expected one"
                    )
    missing = [environment.folder for environment in environments if environment not in found]
    if missing:
        raise InputError(
            f"what was unpacked has no folder {', '.join(missing)}; expected one for each environment, "
            "so give all of the data set's archives"
        )
    return {environment: found[environment] for environment in environments}


def folders_of(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without those that operating systems add.

    Example:
        >>> folders_of(Path("no-such-folder"))
        []
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_meant(path.name))


def files_of(folder: Path) -> list[Path]:
    """The files in a folder, sorted by name, without those that operating systems add.

    Example:
        >>> files_of(Path("no-such-folder"))
        []
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and is_meant(path.name))


def _by_depth(folder: Path) -> Iterator[Path]:
    layer = folders_of(folder)
    while layer:
        yield from layer
        layer = [inner for outer in layer for inner in folders_of(outer)]
