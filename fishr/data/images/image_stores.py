"""Where images are read from: files, or a tensor on the device; ``image_cache.CachedImages`` reads a cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from attrs import evolve, frozen
from torch import Tensor

from fishr.data.images.decoding import Array, decode
from fishr.data.images.domainbed_augmentation import DrawnAugmentation, crop, crop_together

if TYPE_CHECKING:
    from PIL.Image import Image


class Images(Protocol):
    """Images that any thread can read one by one."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each image, equal on all machines, such as "photo/dog/1.jpg"."""
        ...

    def read(self, index: int) -> "Image | Array":
        """Return an RGB image of any size; or [size, size, 3] uint8 of one that is resized already."""
        ...


@frozen
class ImageFiles:
    """Images in files.

    Args:
        root: Folder that relative names start at.

    Example:
        >>> ImageFiles(Path("PACS"), ("photo/dog/1.jpg",)).path(0).as_posix()
        'PACS/photo/dog/1.jpg'
    """

    root: Path
    names: tuple[str, ...]

    def path(self, index: int) -> Path:
        """Return the path of an image."""
        return self.root / self.names[index]

    def read(self, index: int) -> "Image":
        """Return an image, RGB.

        Raises:
            InputError: The file cannot be read.
        """
        return decode(self.path(index))


@frozen(eq=False)
class DeviceImages:
    """Resized images in one tensor [N, size, size, 3] uint8 on any device."""

    names: tuple[str, ...]
    pixels: Tensor

    def read(self, index: int) -> Array:
        return self.pixels[index].cpu().numpy()

    def to(self, device: torch.device) -> "DeviceImages":
        return evolve(self, pixels=self.pixels.to(device))

    def batch(self, rows: Sequence[int], drawn: Sequence[DrawnAugmentation] | None) -> Tensor:
        """Return images, or their crops, [n, 3, size, size] uint8 on the device."""
        size = self.pixels.shape[1]
        if drawn is not None and self.pixels.device.type == "cpu":
            # A crop is read in place, without a copy of the whole image.
            return crop(((self.pixels[row], one) for row, one in zip(rows, drawn, strict=True)), size)
        whole = self.pixels.index_select(0, torch.tensor(rows, device=self.pixels.device)).permute(0, 3, 1, 2)
        return whole if drawn is None else crop_together(whole, drawn, size)
