"""Images of one environment as inputs that are read when they are needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from attrs import Factory, evolve, frozen
from torch import Tensor

from fishr.data.caches import ImageRows
from fishr.data.images.augmentation import Augmentation, augment, draw_augmentation
from fishr.data.images.coloring import colored
from fishr.data.images.cropping import crops
from fishr.data.images.decoding import Array, decode, normalized, normalized_pixels, pixels, resized
from fishr.data.images.holding import HeldImages, hold
from fishr.data.images.names import portable
from fishr.data.splits import seed_hash

if TYPE_CHECKING:
    from PIL.Image import Image

Prepare = Literal["reader", "device", "held"]


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
        >>> CachedImages(ImageRows(Path("images.h5"), "0123"), 0, ("photo/dog/1.jpg",)).names
        ('photo/dog/1.jpg',)
    """

    cached: ImageRows
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
        self, read: Tensor, rows: Sequence[int], seeds: Sequence[int] | None = None, room: Tensor | None = None
    ) -> Tensor:
        """Inputs [n, 3, size, size] of what was read of the same rows with the same seeds, on its device.

        Args:
            read: what ``read`` returned.
            rows: which.
            seeds: of each row; None: to be evaluated.
            room: [n, 3, size, size], where they are to lie; None: wherever.
        """
        if self.prepare == "reader":
            return read if room is None else room.copy_(read)
        given = self._seeds(rows, seeds)
        return normalized_pixels(read, room) if given is None else colored(read, self._drawn(given), room)

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
