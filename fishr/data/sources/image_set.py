"""The record of a data set of image files: its folders, and where its archives come from."""

from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from fishr.data.images.folders import LAYOUT


@frozen
class Archive:
    """One file to fetch.

    Args:
        name: of the file it becomes.
        address: where it is published.

    Example:
        >>> Archive("clipart.zip", "https://host.example/clipart.zip").on_drive
        False
    """

    name: str
    address: str

    @property
    def on_drive(self) -> bool:
        """Whether Google Drive has it, which sends large files to its own clients only."""
        return self.address.startswith("https://drive.google.com/")


@frozen
class Environment:
    """One environment of a data set.

    Args:
        folder: its name on disk.
        title: as tables call it.
        also: other names that published copies give the folder.

    Example:
        >>> Environment("SUN09", "S", also=("SUN",)).is_called("sun")
        True
    """

    folder: str
    title: str
    also: tuple[str, ...] = ()

    def is_called(self, name: str) -> bool:
        """Whether a folder of that name is meant; case, blanks and underscores do not count."""
        return _plain(name) in map(_plain, (self.folder, *self.also))


Relay = Callable[[Path, Path, tuple[Environment, ...]], tuple[str, ...]]
"""From (what was unpacked, an empty folder, environments) to notes for people; it moves the images to the folder."""


@frozen
class ImageSet:
    """A data set that lies on disk as FOLDER/ENVIRONMENT/CLASS/IMAGE.

    Args:
        name: as DomainBed and its records call it.
        description: what it is.
        folder: where it lies below the data folder.
        environments: in the order of their indices.
        classes: C.
        origin: where people find it.
        relay: lays out what was unpacked.
        archives: what is fetched; empty: people have to fetch it themselves.
        by_hand: what more there is to know to lay it out oneself.
        class_names: where they are few.
        licence: where it is known.

    Example:
        >>> from fishr.data.sources import find_image_set
        >>> find_image_set("pacs").folder
        'PACS'
    """

    name: str
    description: str
    folder: str
    environments: tuple[Environment, ...]
    classes: int
    origin: str
    relay: Relay
    archives: tuple[Archive, ...] = ()
    by_hand: str = "unpack it, and move its environments' folders there"
    class_names: tuple[str, ...] = ()
    licence: str = ""

    @property
    def layout(self) -> str:
        """The paths of its images below the data folder."""
        return f"{self.folder}/{LAYOUT}"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
