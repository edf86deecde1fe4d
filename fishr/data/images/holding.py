"""Images that a device holds as 8-bit pixels, read once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from attrs import evolve, frozen
from torch import Tensor

from fishr.data.images.augmentation import Augmentation
from fishr.data.images.cropping import crops
from fishr.data.images.decoding import Array
from fishr.data.inputs import LazyInputs
from fishr.data.reading import unfinished
from fishr.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

_ROWS_A_TURN = 512


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


def hold(inputs: LazyInputs, names: tuple[str, ...], device: torch.device) -> HeldImages:
    """Read all of some images.

    Args:
        inputs: N, of which ``read`` gives pixels [n, 3, size, size] uint8.
        names: of the images, N.
        device: where to.

    Raises:
        InputError: an image cannot be read, or the device has not enough memory.

    Example:
        >>> from pathlib import Path
        >>> from fishr.data.images import ImageFiles, Pictures
        >>> unread = Pictures(ImageFiles(Path("PACS"), ()), size=8, augment=False, prepare="device")
        >>> hold(unread, (), torch.device("cpu")).held.shape
        torch.Size([0, 8, 8, 3])
    """
    count, channels, *sides = inputs.shape
    try:
        held = torch.empty((count, *sides, channels), dtype=torch.uint8, device=device)
    except RuntimeError as error:
        what, size = f"{count} images of {sides[0]} × {sides[1]} pixels", inputs.shape.numel() / 2**30
        raise InputError(
            f'prepare: got "held" for {what}, expected {size:.1f} GiB of room on {device}; set it to "device", or take '
            "fewer images"
        ) from error
    for start in range(0, count, _ROWS_A_TURN):
        rows = range(start, min(start + _ROWS_A_TURN, count))
        held[rows.start : rows.stop] = unfinished(inputs, rows).permute(0, 2, 3, 1)
    return HeldImages(names, held)
