"""Environments from folders of image files."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from fishr.data.environments import Environments
from fishr.data.images.assembling import assemble, check_settings
from fishr.data.images.listing import Listed, chosen_environments
from fishr.data.images.pictures import ImageFiles, Prepare
from fishr.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LAYOUT = "ENVIRONMENT/CLASS/IMAGE"


@frozen
class ImageFolders:
    """Images that lie as <data_dir>/<folder>/<environment>/<class>/<image>, read when they are needed.

    Classes are those of all environments together, of which one may lack some. Images come in torchvision's order, by
    class, folder and file name, so that splits are DomainBed's. Hidden files and files of other kinds are passed over.

    Args:
        folder: path of the data set; a relative one starts at ``data_dir``, or at the folder "data" where none is
            given.
        size: side of an input, pixels.
        augment: whether training images are augmented as DomainBed does.
        augment_evaluation: whether images to be evaluated are augmented too, each always in the same way.
        environments: names of those to take, in this order, all of which must be there; None: all there are, sorted.
        samples: rows of each environment at most, the same in every run, of all classes; None: all.
        cache: path of a file of ``fishr cache images`` to read instead of the folder, which need not be there; a
            relative one starts where that of ``folder`` does.
        prepare: who makes inputs of images. "reader": the thread that reads one, alone. "device": threads read and
            crop, and where the model computes the colours of a batch are changed at once. "held": the same, but images
            are read once, resized, and kept there as 8-bit pixels.

    Raises:
        InputError: a setting outside its range; when called, a folder that is missing or laid out in another way,
            images that cannot be read, or a cache of another size or without the environments.

    Example:
        >>> ImageFolders("PACS")(seed=0, data_dir=Path("nowhere"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere/PACS: no such folder; run `fishr data download`, or lay images there as \
ENVIRONMENT/CLASS/IMAGE

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """

    folder: str
    size: int = 224
    augment: bool = True
    augment_evaluation: bool = False
    environments: tuple[str, ...] | None = None
    samples: int | None = None
    cache: str | None = None
    prepare: Prepare = "reader"

    def __attrs_post_init__(self) -> None:
        """Refuse what no images could be read by."""
        check_settings(self)

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """List and check the files; there is nothing to draw, so ``seed`` is not used."""
        return assemble(self, self.folder, data_dir, lambda root: list_folder(root, self.environments))


def list_folder(root: Path, wanted: Sequence[str] | None = None) -> tuple[Listed, ...]:
    """The images below a folder, by environment.

    Args:
        root: folder of ENVIRONMENT/CLASS/IMAGE.
        wanted: names of the environments to take; None: all.

    Raises:
        InputError: no such folder, a level of it missing, or an environment without images.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "photo", "dog").mkdir(parents=True)
        ...     Path(folder, "photo", "dog", "1.jpg").touch()
        ...     list_folder(Path(folder))[0].images.names
        ('photo/dog/1.jpg',)
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; run `fishr data download`, or lay images there as {LAYOUT}")
    folders = _folders(root)
    if not folders:
        got = "its images lie directly in it" if _has_images(root) else "it has no images"
        raise InputError(f"{root}: {got}, expected folders of environments; lay images as {LAYOUT}")
    names = chosen_environments(root, folders, wanted)
    found = [(name, [pair for each in _folders(root / name) for pair in _images(root, name, each)]) for name in names]
    if not any(pairs for _, pairs in found) and not any(_has_images(root / name) for name in names):
        raise InputError(
            f"{root}: it has no images (files such as {', '.join(EXTENSIONS[:3])}) in {len(names)} folders; lay them "
            f"as {LAYOUT}"
        )
    return tuple(_listed(root, name, pairs) for name, pairs in found)


def _listed(root: Path, name: str, pairs: list[tuple[str, str]]) -> Listed:
    if not pairs and _has_images(root / name):
        raise InputError(
            f"{root / name}: its images lie directly in it, expected folders of classes; lay images as {LAYOUT}, and "
            "name the folder that has the environments"
        )
    if not pairs:
        raise InputError(
            f"{root / name}: it has no class, expected folders with images; remove it, name the environments to take, "
            f"or lay images as {LAYOUT}"
        )
    return Listed(name, ImageFiles(root, tuple(image for image, _ in pairs)), tuple(group for _, group in pairs))


def _images(root: Path, environment: str, group: str) -> Iterator[tuple[str, str]]:
    """Names of a class's images from the root, with that of the class."""
    top = f"{root / environment / group}"
    inside = list[tuple[str, list[str]]]()
    for folder, inner, files in os.walk(top, followlinks=True, onerror=_refuse):
        inner[:] = [name for name in inner if _counts(name)]
        inside.append((folder[len(top) :], files))
    for folder, files in sorted(inside):
        for file in sorted(files):
            if _is_image(file):
                yield f"{environment}/{group}{folder}/{file}", group


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and _counts(entry.name))
    except OSError as error:
        _refuse(error)
        raise


def _has_images(folder: Path) -> bool:
    return any(_is_image(path.name) and path.is_file() for path in folder.iterdir())


def _is_image(name: str) -> bool:
    return _counts(name) and name.lower().endswith(EXTENSIONS)


def _counts(name: str) -> bool:
    # What operating systems leave in folders and archives.
    return not name.startswith(".") and name != "__MACOSX"


def _refuse(error: OSError) -> None:
    raise InputError(
        f"{error.filename}: cannot be read ({error.strerror}); ask for the right to, or copy it"
    ) from error
