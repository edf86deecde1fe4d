"""Environments from folders of image files."""

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from fishr.data.domains import Environments
from fishr.data.images.assembling import assemble, check_settings
from fishr.data.images.layout_doubts import check_layout, warn_of_layout
from fishr.data.images.listing import Listed, chosen_environments
from fishr.data.images.names import checked_name
from fishr.data.images.pictures import ImageFiles, Prepare
from fishr.data.images.scanning import EXTENSIONS, enter, entries_of, files_below, has_images, is_image
from fishr.errors import InputError

LAYOUT = "ENVIRONMENT/CLASS/IMAGE"


@frozen
class ImageFolders:
    """Images that lie as <data_dir>/<folder>/<environment>/<class>/<image>, read when they are needed.

    Classes are those of all environments together, of which one may lack some. Images come in torchvision's order, by
    class, folder and file name, so that splits are DomainBed's. Files of other kinds, hidden ones and what systems
    leave, such as @eaDir, are passed over. Links are followed, but no folder is taken twice. A class is the same in
    each environment whichever form of Unicode its folder's name has.

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
        return assemble(self, self.folder, data_dir, self._listed)

    def _listed(self, root: Path) -> tuple[Listed, ...]:
        found = list_folder(root, self.environments)
        warn_of_layout(root, found)
        return found


def list_folder(root: Path, wanted: Sequence[str] | None = None) -> tuple[Listed, ...]:
    """The images below a folder, by environment.

    Args:
        root: folder of ENVIRONMENT/CLASS/IMAGE.
        wanted: names of the environments to take; None: all.

    Raises:
        InputError: no such folder, a level of it missing, an environment without images, or a folder that links make
            two.

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
    folders = _environments(root)
    if not folders:
        got = "its images lie directly in it" if has_images(root) else "it has no images"
        raise InputError(f"{root}: {got}, expected folders of environments; lay images as {LAYOUT}")
    entered = dict[str, str]()
    enter(str(root), entered)
    found = [_listed(root, folders[name], name, entered) for name in chosen_environments(root, list(folders), wanted)]
    if not any(each.classes or has_images(root / folders[each.name]) for each in found):
        raise InputError(
            f"{root}: it has no images (files such as {', '.join(EXTENSIONS[:3])}) in {len(found)} folders; lay them "
            f"as {LAYOUT}"
        )
    for each in found:
        _check_classes(root / folders[each.name], each)
    check_layout(root, found)
    return tuple(found)


def _environments(root: Path) -> dict[str, str]:
    """Folders by the environments' names."""
    found = dict[str, str]()
    for folder in entries_of(root)[0]:
        name = checked_name(root, folder)
        if name in found:
            both = f"{found[name]!a} and {folder!a}"
            raise InputError(f"{root}: the names of the folders {both} look alike; rename one, or move its images")
        found[name] = folder
    return found


def _listed(root: Path, folder: str, name: str, entered: dict[str, str]) -> Listed:
    """The images of an environment, none of which need be there."""
    enter(str(root / folder), entered)
    groups, beside = entries_of(root / folder)
    images, classes, passed = list[str](), list[str](), [f"{folder}/{file}" for file in beside]
    for group in groups:
        class_name = checked_name(root / folder, group)
        for inner, files in sorted(files_below(f"{root / folder / group}", entered)):
            for file in sorted(files):
                path = f"{folder}/{group}{inner}/{file}"
                if is_image(file):
                    images.append(path)
                    classes.append(class_name)
                else:
                    passed.append(path)
    return Listed(name, ImageFiles(root, tuple(images)), tuple(classes), tuple(passed))


def _check_classes(folder: Path, environment: Listed) -> None:
    if environment.classes:
        return
    if has_images(folder):
        raise InputError(
            f"{folder}: its images lie directly in it, expected folders of classes; lay images as {LAYOUT}, and "
            "name the folder that has the environments"
        )
    raise InputError(
        f"{folder}: it has no class, expected folders with images; remove it, name the environments to take, "
        f"or lay images as {LAYOUT}"
    )
