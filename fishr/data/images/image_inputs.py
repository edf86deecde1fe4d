"""Images of one environment as network inputs, read when a batch needs them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from attrs import Factory, evolve, field, frozen
from torch import Tensor

from fishr.data.environments import seed_hash
from fishr.data.images.augmentation import (
    Augmentation,
    DomainBedAugmentation,
    NoAugmentation,
    augmentation_of,
    augmented,
)
from fishr.data.images.color_jitter import jitter_colors
from fishr.data.images.decoding import Array, as_image, pixels
from fishr.data.images.domainbed_augmentation import DrawnAugmentation, augment, crop, draw_augmentation
from fishr.data.images.image_stores import DeviceImages, Images
from fishr.data.images.listed_images import portable
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.reading import unfinished
from fishr.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

# "held" is the former name of "device_cache".
Prepare = Literal["reader", "device", "device_cache", "held"]
_SAMPLES_AT_ONCE = 512


@frozen(eq=False)
class ImageInputs:
    """Images as inputs [N, 3, size, size] float32, normalized, read when a batch needs them.

    Without augmentation, an input is the whole image, resized. An augmented input is a function of the image and a seed
    alone: the seed that a training step draws or, in evaluation, a hash of the image's name. Neither the thread that
    reads an image nor its place in the batch changes the input.

    A seed draws the same augmentation for every ``prepare``, except the crop of an image that is resized first. The
    pixels of DomainBed's augmentation differ by rounding: "reader" rounds to whole numbers after each change, as
    DomainBed does; the others round after the crop only. Other augmentations are made by the threads that read.

    Args:
        images: Where the images are read from.
        preprocessing: Size, interpolation and normalization of the inputs.
        augment: Augmentation of inputs that are read with seeds; True: DomainBed's; False: none.
        augment_evaluation: Augment inputs that are read without seeds too, as DomainBed does when it evaluates training
            environments.
        rows: Which of the images, N.
        prepare: "reader": one thread reads and augments an image. "device": threads read and crop; the colors of a
            batch are changed on the model's device. "device_cache": as "device", from resized images that ``to`` reads
            and keeps on the device.

    Example:
        >>> from pathlib import Path
        >>> from fishr.data.images import ImageFiles
        >>> inputs = ImageInputs(ImageFiles(Path("PACS"), ("photo/dog/1.jpg", "photo/dog/2.jpg")), Preprocessing(224))
        >>> inputs.shape, inputs.select([1]).shape
        (torch.Size([2, 3, 224, 224]), torch.Size([1, 3, 224, 224]))
    """

    images: Images
    preprocessing: Preprocessing
    augment: Augmentation = field(default=DomainBedAugmentation(), converter=augmentation_of)
    augment_evaluation: bool = False
    rows: Sequence[int] = Factory(lambda self: range(len(self.images.names)), takes_self=True)
    prepare: Prepare = "reader"

    @property
    def shape(self) -> torch.Size:
        """[N, 3, size, size]."""
        return torch.Size((len(self.rows), 3, self.size, self.size))

    @property
    def dtype(self) -> torch.dtype:
        """``torch.float32``."""
        return torch.float32

    @property
    def size(self) -> int:
        """Side of an input, pixels."""
        return self.preprocessing.size

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Sequence[int]) -> "ImageInputs":
        """Return some of the inputs, unread."""
        return evolve(self, rows=tuple(self.rows[row] for row in rows))

    def plain(self) -> "ImageInputs":
        """Return the same inputs without augmentation."""
        return evolve(self, augment=False, augment_evaluation=False)

    def to(self, device: torch.device) -> "ImageInputs":
        """Return the same inputs; with a device cache, read all images now and keep them on the device.

        Raises:
            InputError: An image cannot be read, or the device has too little memory.
        """
        if self.prepare not in ("device_cache", "held"):
            return self
        if isinstance(self.images, DeviceImages):
            return evolve(self, images=self.images.to(device))
        unread, count = evolve(self.plain(), prepare="device"), len(self.rows)
        try:
            cache = torch.empty((count, self.size, self.size, 3), dtype=torch.uint8, device=device)
        except RuntimeError as error:
            raise InputError(
                f'prepare: got "{self.prepare}" for {count} images of {self.size} × {self.size} pixels, expected '
                f'{self.shape.numel() / 2**30:.1f} GiB of memory on {device}; set it to "device", or take fewer images'
            ) from error
        for start in range(0, count, _SAMPLES_AT_ONCE):
            rows = range(start, min(start + _SAMPLES_AT_ONCE, count))
            cache[rows.start : rows.stop] = unfinished(unread, rows).permute(0, 2, 3, 1)
        names = tuple(self.images.names[row] for row in self.rows)
        return evolve(self, images=DeviceImages(names, cache), rows=range(count))

    def read(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> Tensor:
        """Return inputs [n, 3, size, size] on the CPU, or uint8 images or crops that ``finish`` turns into inputs.

        Raises:
            InputError: An image cannot be read.
        """
        chosen, seeds = [self.rows[row] for row in rows], self._seeds(rows, seeds)
        in_steps = self.prepare != "reader" and isinstance(self.augment, DomainBedAugmentation)
        if isinstance(self.images, DeviceImages) and (seeds is None or (in_steps and self._has_tensor_crop)):
            return self.images.batch(chosen, None if seeds is None else self._drawn(seeds))
        if seeds is not None and in_steps:
            if self._has_tensor_crop:
                return crop(map(self._whole, chosen, seeds), self.size)
            return pixels([self._crop(row, seed) for row, seed in zip(chosen, seeds, strict=True)], self.size)
        if seeds is None:
            made = pixels([self._resized(row) for row in chosen], self.size)
        else:
            images = ((as_image(self.images.read(row)), seed) for row, seed in zip(chosen, seeds, strict=True))
            drawn = [augmented(self.augment, image, seed, self.preprocessing) for image, seed in images]
            made = pixels(drawn, self.size)
        return self.preprocessing.normalized(made) if self.prepare == "reader" else made

    def finish(
        self, read: Tensor, rows: Sequence[int], seeds: Sequence[int] | None = None, out: Tensor | None = None
    ) -> Tensor:
        """Return inputs [n, 3, size, size] from what ``read`` returned for the same rows and seeds, on its device."""
        if self.prepare == "reader":
            return read if out is None else out.copy_(read)
        seeds = self._seeds(rows, seeds)
        if seeds is None or not isinstance(self.augment, DomainBedAugmentation):
            return self.preprocessing.normalized(read, out)
        return jitter_colors(read, self._drawn(seeds), self.preprocessing, out)

    @property
    def _has_tensor_crop(self) -> bool:
        """Whether crops are made of tensors; Pillow makes those of another interpolation."""
        return self.preprocessing.interpolation == "bilinear" and self.preprocessing.antialias

    def _resized(self, row: int) -> Array:
        image = self.images.read(row)
        # A cache has this size, or was refused.
        return image if isinstance(image, np.ndarray) else np.asarray(self.preprocessing.resized(image))

    def _whole(self, row: int, seed: int) -> tuple[Tensor, DrawnAugmentation]:
        """Return an image [height, width, 3] and its augmentation."""
        image = self.images.read(row)
        # torch warns of Pillow's memory, which is not writable.
        whole = torch.from_numpy(image if isinstance(image, np.ndarray) else np.array(image))
        return whole, draw_augmentation(seed, whole.shape[1], whole.shape[0])

    def _crop(self, row: int, seed: int) -> "Image":
        whole = as_image(self.images.read(row))
        drawn = evolve(draw_augmentation(seed, *whole.size), jitters=(), gray=False)
        return augment(whole, drawn, self.preprocessing)

    def _seeds(self, rows: Sequence[int], seeds: Sequence[int] | None) -> Sequence[int] | None:
        """Return the seed of each row's augmentation; None: no augmentation."""
        if isinstance(self.augment, NoAugmentation):
            return None
        if seeds is not None:
            return seeds
        if not self.augment_evaluation:
            return None
        return [seed_hash("evaluation", portable(self.images.names[self.rows[row]])) for row in rows]

    def _drawn(self, seeds: Sequence[int]) -> list[DrawnAugmentation]:
        """Return augmentations of images of the inputs' size; their colors equal those of any other size."""
        return [draw_augmentation(seed, self.size, self.size) for seed in seeds]


# Former name.
Pictures = ImageInputs
