"""DomainBed's augmentation of an image: drawn from a seed, applied with Pillow or, up to its colors, with torch."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional as F

from fishr.data.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

AREA = (0.7, 1.0)
ASPECT = (3 / 4, 4 / 3)
JITTER = 0.3
GRAY = 0.1
JITTERS = ("brightness", "contrast", "saturation", "hue")
_TRIES = 10


@frozen
class DrawnAugmentation:
    """Changes of one image, in this order: crop and resize, mirror, jitter the colors as listed, turn gray."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool
    jitters: tuple[tuple[str, float], ...]
    gray: bool


# Reading and finishing a batch ask for the same draws.
@lru_cache(maxsize=4096)
def draw_augmentation(seed: int, width: int, height: int) -> DrawnAugmentation:
    """Draw a crop of 70 to 100 % of the area, a mirrored half, color jitter and a gray tenth, from the seed alone."""
    # Of Python's generators only this method gives the same numbers in every version, by promise.
    uniform = Random(seed).random
    mirrored = uniform() < 0.5
    factors = {name: _between(uniform, 1 - JITTER, 1 + JITTER) for name in JITTERS[:3]}
    factors["hue"] = _between(uniform, -JITTER, JITTER)
    # Sorting by independent draws makes every order equally likely.
    order = sorted(JITTERS, key=lambda _: uniform())
    gray = uniform() < GRAY
    # Last, as the number of its draws depends on the image's size; everything else must not.
    top, left, rows, columns = _draw_crop(uniform, width, height)
    return DrawnAugmentation(top, left, rows, columns, mirrored, tuple((name, factors[name]) for name in order), gray)


def augment(image: "Image", drawn: DrawnAugmentation, preprocessing: Preprocessing) -> "Image":
    """Apply an augmentation that was drawn for the image's size; return RGB of the inputs' size."""
    from torchvision.transforms import functional as transforms

    box = (drawn.left, drawn.top, drawn.left + drawn.width, drawn.top + drawn.height)
    made: Any = preprocessing.resized(image.crop(box))
    if drawn.mirrored:
        made = transforms.hflip(made)
    for name, factor in drawn.jitters:
        made = getattr(transforms, f"adjust_{name}")(made, factor)
    return transforms.rgb_to_grayscale(made, 3) if drawn.gray else made  # pyright: ignore[reportReturnType]


def crop(images: Iterable[tuple[Tensor, DrawnAugmentation]], size: int) -> Tensor:
    """Crop, resize and mirror uint8 images [height, width, 3] as torchvision does; return [n, 3, size, size]."""
    made = list[Tensor]()
    for image, drawn in images:
        cut = image[None, drawn.top : drawn.top + drawn.height, drawn.left : drawn.left + drawn.width]
        # Channels that are last in memory are resized without a copy.
        resized = F.interpolate(cut.permute(0, 3, 1, 2), (size, size), mode="bilinear", antialias=True)
        made.append(resized.flip(3) if drawn.mirrored else resized)
    return torch.cat(made)


def _draw_crop(uniform: Callable[[], float], width: int, height: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width; a centered crop if no drawn shape fits into the image."""
    for _ in range(_TRIES):
        area = width * height * _between(uniform, *AREA)
        aspect = math.exp(_between(uniform, *map(math.log, ASPECT)))
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            return int((height - rows + 1) * uniform()), int((width - columns + 1) * uniform()), rows, columns
    narrowest, widest = ASPECT
    columns, rows = min(width, round(height * widest)), min(height, round(width / narrowest))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _between(uniform: Callable[[], float], low: float, high: float) -> float:
    return low + (high - low) * uniform()


def crop_together(images: Tensor, augmentations: Sequence[DrawnAugmentation], size: int) -> Tensor:
    """Crop images no larger than ``size`` in one batch; each crop grows, so there is nothing to antialias."""
    boxes = [(drawn.top, drawn.height, drawn.left, drawn.width) for drawn in augmentations]
    top, height, left, width = torch.tensor(boxes, dtype=torch.float32, device=images.device).unbind(1)
    mirrored = torch.tensor([drawn.mirrored for drawn in augmentations], device=images.device)
    rows, columns = _positions(top, height, images.shape[2], size), _positions(left, width, images.shape[3], size)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    grid = torch.stack([columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)], dim=-1)
    values = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values.round_().to(torch.uint8)


def _positions(start: Tensor, length: Tensor, whole: int, size: int) -> Tensor:
    """Return where each pixel of a side is in the image, from -1 to 1 as in ``grid_sample``; never beyond the crop."""
    centers = torch.arange(size, device=start.device) + 0.5
    inside = (centers * (length[:, None] / size) - 0.5).clamp_(min=0)
    pixels = start[:, None] + torch.minimum(inside, length[:, None] - 1)
    return (2 * pixels + 1) / whole - 1
