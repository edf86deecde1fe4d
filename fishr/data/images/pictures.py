"""Images of one environment as inputs that are read when they are needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from attrs import Factory, evolve, frozen
from torch import Tensor

from fishr.data.caches import ImageRows
from fishr.data.images.augmentation import augment, draw_augmentation
from fishr.data.images.decoding import decode, normalized, resized
from fishr.data.splits import seed_hash

if TYPE_CHECKING:
    from PIL.Image import Image


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

        return Image.fromarray(self.cached.read(self.domain, row))


@frozen(eq=False)
class Pictures:
    """Images as inputs [N, 3, size, size] float32 in ImageNet's normalization, read when they are needed.

    A plain image is the whole one, resized. An augmented one is a function of the image and a seed alone: its own of
    a training step, or, to be evaluated, one that its name decides. So neither the thread that reads it nor its place
    in a batch changes it.

    Args:
        images: where they come from.
        size: side of an input, pixels.
        augment: whether those with seeds are augmented.
        augment_evaluation: whether those without are augmented too, as DomainBed evaluates training environments.
        rows: which of the images, N.

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

    def read(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> Tensor:
        """Inputs [n, 3, size, size] on the CPU.

        Args:
            rows: which, in this order; one may come twice.
            seeds: of the augmentation of each row, as a training step draws them; None: to be evaluated.

        Raises:
            InputError: an image cannot be read.
        """
        chosen = [self.rows[row] for row in rows]
        given = seeds if seeds is not None else [self._evaluation_seed(row) for row in chosen]
        augmented = self.augment if seeds is not None else self.augment_evaluation
        pictures = [
            self._augmented(row, seed) if augmented else resized(self.images.image(row), self.size)
            for row, seed in zip(chosen, given, strict=True)
        ]
        return normalized(pictures, self.size)

    def _augmented(self, row: int, seed: int) -> "Image":
        image = self.images.image(row)
        return augment(image, draw_augmentation(seed, *image.size), self.size)

    def _evaluation_seed(self, row: int) -> int:
        return seed_hash("evaluation", self.images.names[row])
