"""Images of one environment as inputs that are read when they are needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from attrs import Factory, evolve, frozen
from torch import Tensor

from fishr.data.domains import LazyInputs
from fishr.data.environments import seed_hash
from fishr.data.images.augmentation import Augmentation, augment, crops, draw_augmentation
from fishr.data.images.color_jitter import colored
from fishr.data.images.decoding import Array, normalized, normalized_pixels, pixels, resized
from fishr.data.images.image_stores import CachedImages, HeldImages, Images
from fishr.data.images.listed_images import portable
from fishr.data.reading import unfinished
from fishr.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Prepare = Literal["reader", "device", "held"]


@frozen(eq=False)
class Pictures:
    """Images as inputs [N, 3, size, size] float32 in ImageNet's normalization, read when they are needed.

    A plain image is the whole one, resized. An augmented one is a function of the image and a seed alone: its own of
    a training step, or, to be evaluated, one that its name decides. So neither the thread that reads it nor its place
    in a batch changes it.

    The draw of a seed is the same whoever prepares the inputs, but for a crop of an image that is resized before. The
    pixels differ by rounding: a reader rounds to whole numbers after each change, as DomainBed does, a device after the
    crop alone.

    Args:
        images: where they come from.
        size: side of an input, pixels.
        augment: whether those with seeds are augmented.
        augment_evaluation: whether those without are augmented too, as DomainBed evaluates training environments.
        rows: which of the images, N.
        prepare: "reader": all of it image by image, by the thread that reads; "device": threads read and crop, and a
            batch's colours are changed where the model computes; "held": the same, of resized images that ``to``
            reads and keeps there.

    Example:
        >>> from fishr.data.images import ImageFiles
        >>> pictures = Pictures(ImageFiles(Path("PACS"), ("photo/dog/1.jpg", "photo/dog/2.jpg")), size=224)
        >>> pictures.shape, pictures.select([1]).shape
        (torch.Size([2, 3, 224, 224]), torch.Size([1, 3, 224, 224]))
    """

    images: Images
    size: int
    augment: bool = True
    augment_evaluation: bool = False
    rows: Sequence[int] = Factory(lambda self: range(len(self.images.names)), takes_self=True)
    prepare: Prepare = "reader"

    @property
    def shape(self) -> torch.Size:
        """[N, 3, size, size]."""
        return torch.Size((len(self.rows), 3, self.size, self.size))

    @property
    def dtype(self) -> torch.dtype:
        """Of the inputs."""
        return torch.float32

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    def select(self, rows: Sequence[int]) -> "Pictures":
        """Some of the images, still unread."""
        return evolve(self, rows=tuple(self.rows[row] for row in rows))

    def plain(self) -> "Pictures":
        """The same images, never augmented."""
        return evolve(self, augment=False, augment_evaluation=False)

    def to(self, device: torch.device) -> "Pictures":
        """The same images; those that are to be held are read now, and lie on the device.

        Raises:
            InputError: an image cannot be read, or there is not enough memory.
        """
        if self.prepare != "held":
            return self
        if isinstance(self.images, HeldImages):
            return evolve(self, images=self.images.to(device))
        unread = evolve(self.plain(), prepare="device")
        names = tuple(self.images.names[row] for row in self.rows)
        return evolve(self, images=hold(unread, names, device), rows=range(len(self.rows)))

    def read(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> Tensor:
        """Inputs [n, 3, size, size] on the CPU, or the 8-bit crops that ``finish`` makes them of.

        Args:
            rows: which, in this order; one may come twice.
            seeds: of the augmentation of each row, as a training step draws them; None: to be evaluated.

        Raises:
            InputError: an image cannot be read.
        """
        chosen, given = [self.rows[row] for row in rows], self._seeds(rows, seeds)
        if isinstance(self.images, HeldImages):
            return self.images.pixels(chosen) if given is None else self.images.crops(chosen, self._drawn(given))
        if given is None:
            plain = pixels([self._plain(row) for row in chosen], self.size)
            return normalized_pixels(plain) if self.prepare == "reader" else plain
        pairs = list(zip(chosen, given, strict=True))
        if self.prepare == "reader":
            return normalized([self._augmented(row, seed) for row, seed in pairs], self.size)
        return torch.cat([self._crop(row, seed) for row, seed in pairs])

    def finish(
        self, read: Tensor, rows: Sequence[int], seeds: Sequence[int] | None = None, out: Tensor | None = None
    ) -> Tensor:
        """Inputs [n, 3, size, size] of what was read of the same rows with the same seeds, on its device.

        Args:
            read: what ``read`` returned.
            rows: which.
            seeds: of each row; None: to be evaluated.
            out: [n, 3, size, size], where they are to lie; None: wherever.
        """
        if self.prepare == "reader":
            return read if out is None else out.copy_(read)
        given = self._seeds(rows, seeds)
        return normalized_pixels(read, out) if given is None else colored(read, self._drawn(given), out)

    def _plain(self, row: int) -> Array:
        # A cache is of this size, or was refused.
        if isinstance(self.images, CachedImages):
            return self.images.array(row)
        return np.asarray(resized(self.images.image(row), self.size))

    def _augmented(self, row: int, seed: int) -> "Image":
        image = self.images.image(row)
        return augment(image, draw_augmentation(seed, *image.size), self.size)

    def _crop(self, row: int, seed: int) -> Tensor:
        whole = torch.from_numpy(self.images.array(row)).permute(2, 0, 1)
        return crops([whole], [draw_augmentation(seed, whole.shape[2], whole.shape[1])], self.size)

    def _seeds(self, rows: Sequence[int], seeds: Sequence[int] | None) -> Sequence[int] | None:
        """Of the augmentation of each row; None: they stay plain."""
        if seeds is not None:
            return seeds if self.augment else None
        if not self.augment_evaluation:
            return None
        return [seed_hash("evaluation", portable(self.images.names[self.rows[row]])) for row in rows]

    def _drawn(self, seeds: Sequence[int]) -> list[Augmentation]:
        """Of images of the inputs' size; colours are those of any other size."""
        return [draw_augmentation(seed, self.size, self.size) for seed in seeds]


_ROWS_A_TURN = 512


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
            f'prepare: got "held" for {what}, expected {size:.1f} GiB of memory on {device}; set it to "device", or '
            "take fewer images"
        ) from error
    for start in range(0, count, _ROWS_A_TURN):
        rows = range(start, min(start + _ROWS_A_TURN, count))
        held[rows.start : rows.stop] = unfinished(inputs, rows).permute(0, 2, 3, 1)
    return HeldImages(names, held)
