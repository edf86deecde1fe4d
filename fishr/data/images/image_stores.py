"""Where images are read from: files, a file of ``fishr cache images``, or a tensor on the device."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from fishr.data.images.augmentation import Augmentation, crops
from fishr.data.images.decoding import Array, decode

if TYPE_CHECKING:
    from PIL.Image import Image

    from fishr.data.caches import ImageRows


class Images(Protocol):
    """Images that are decoded one by one, in any thread."""

    @property
    def names(self) -> tuple[str, ...]:
        """What stands for each image on every machine, such as "photo/dog/1.jpg"."""
        ...

    def image(self, row: int) -> "Image":
        """One image, RGB.

        Raises:
            InputError: it cannot be read.
        """
        ...

    def array(self, row: int) -> Array:
        """The same, [height, width, 3] uint8."""
        ...


@frozen
class ImageFiles:
    """Images that lie in files.

    Args:
        root: folder that relative names start at.
        names: of the files.

    Example:
        >>> ImageFiles(Path("PACS"), ("photo/dog/1.jpg",)).path(0).as_posix()
        'PACS/photo/dog/1.jpg'
    """

    root: Path
    names: tuple[str, ...]

    def path(self, row: int) -> Path:
        """Where an image lies."""
        return self.root / self.names[row]

    def image(self, row: int) -> "Image":
        """One image, RGB.

        Raises:
            InputError: its file cannot be read.
        """
        return decode(self.path(row))

    def array(self, row: int) -> Array:
        """The same, [height, width, 3] uint8."""
        return np.array(self.image(row))


@frozen(eq=False)
class CachedImages:
    """Images that lie in a file of ``fishr cache images``, resized.

    Args:
        cached: the file.
        domain: number of the environment in it.
        names: of the images' files, which need not be there any more.

    Example:
        >>> from fishr.data.caches import ImageRows
        >>> CachedImages(ImageRows(Path("images.h5"), "0123"), 0, ("photo/dog/1.jpg",)).names
        ('photo/dog/1.jpg',)
    """

    cached: "ImageRows"
    domain: int
    names: tuple[str, ...]

    def image(self, row: int) -> "Image":
        """One image, RGB.

        Raises:
            InputError: the file is damaged or another one by now.
        """
        from PIL import Image

        return Image.fromarray(self.array(row))

    def array(self, row: int) -> Array:
        """The same, [height, width, 3] uint8."""
        return self.cached.read(self.domain, row)


@frozen(eq=False)
class HeldImages:
    """Resized images in one tensor.

    Args:
        names: of the images.
        held: [N, size, size, 3] uint8, on any device.

    Example:
        >>> images = HeldImages(("photo/dog/1.jpg",), torch.zeros(1, 4, 4, 3, dtype=torch.uint8))
        >>> images.pixels([0, 0]).shape, images.image(0).size
        (torch.Size([2, 3, 4, 4]), (4, 4))
    """

    names: tuple[str, ...]
    held: Tensor

    def to(self, device: torch.device) -> "HeldImages":
        """The same, on a device."""
        return evolve(self, held=self.held.to(device))

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """Images [n, 3, size, size] uint8 on the device, channels last in memory."""
        return self.held.index_select(0, torch.tensor(rows, device=self.held.device)).permute(0, 3, 1, 2)

    def crops(self, rows: Sequence[int], augmentations: Sequence[Augmentation]) -> Tensor:
        """Crops [n, 3, size, size] uint8 on the device."""
        size = self.held.shape[1]
        if self.held.device.type != "cpu":
            return crops(self.pixels(rows), augmentations, size)
        # A crop is read where it lies.
        return crops([self.held[row].permute(2, 0, 1) for row in rows], augmentations, size)

    def image(self, row: int) -> "Image":
        """One image, RGB."""
        from PIL import Image

        return Image.fromarray(self.array(row))

    def array(self, row: int) -> Array:
        """The same, [height, width, 3] uint8."""
        return self.held[row].cpu().numpy()
