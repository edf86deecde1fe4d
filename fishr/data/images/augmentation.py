"""DomainBed's augmentation of one image: parameters drawn from a seed alone, and their application."""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from PIL.Image import Image

AREA = (0.7, 1.0)
ASPECT = (3 / 4, 4 / 3)
JITTER = 0.3
GRAY = 0.1
JITTERS = ("brightness", "contrast", "saturation", "hue")
_TRIES = 10


@frozen
class Augmentation:
    """What is done to one image, in this order: crop and resize, mirror, change colours, turn gray.

    Args:
        top: first row of the crop, pixels.
        left: its first column.
        height: rows of the crop.
        width: its columns.
        mirrored: whether left and right are exchanged.
        jitters: names and factors of the changes of colour, in the order in which they are made; a factor of 1 leaves
            brightness, contrast and saturation as they are, and one of 0 the hue.
        gray: whether all colour is taken away.

    Example:
        >>> Augmentation(0, 0, 8, 8, mirrored=True, jitters=(("hue", 0.1),), gray=False).jitters
        (('hue', 0.1),)
    """

    top: int
    left: int
    height: int
    width: int
    mirrored: bool
    jitters: tuple[tuple[str, float], ...]
    gray: bool


def draw_augmentation(seed: int, width: int, height: int) -> Augmentation:
    """The augmentation of one image: a crop of 70 to 100 % of its area, a mirrored half, changed colours, a gray tenth.

    Args:
        seed: decides everything, whatever else is drawn in the process.
        width: of the image, pixels.
        height: of the image, pixels.

    Example:
        >>> draw_augmentation(3, 100, 80) == draw_augmentation(3, 100, 80)
        True
        >>> draw_augmentation(3, 100, 80) == draw_augmentation(4, 100, 80)
        False

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021, section 4.
    """
    # Of Python's generators this method alone is promised to give the same numbers in every version.
    uniform = Random(seed).random
    mirrored = uniform() < 0.5
    factors = {name: _between(uniform, 1 - JITTER, 1 + JITTER) for name in JITTERS[:3]}
    factors["hue"] = _between(uniform, -JITTER, JITTER)
    # Sorting by independent draws makes every order equally likely.
    order = sorted(JITTERS, key=lambda _: uniform())
    gray = uniform() < GRAY
    # Last, as the number of its draws depends on the image, which nothing else is to.
    top, left, rows, columns = _crop(uniform, width, height)
    return Augmentation(top, left, rows, columns, mirrored, tuple((name, factors[name]) for name in order), gray)


def augment(image: "Image", augmentation: Augmentation, size: int) -> "Image":
    """Apply an augmentation.

    Args:
        image: RGB.
        augmentation: drawn for an image of its width and height.
        size: side of the result, pixels.

    Returns:
        RGB, size × size.

    Example:
        >>> from PIL import Image
        >>> augment(Image.new("RGB", (20, 10)), draw_augmentation(0, 20, 10), size=8).size
        (8, 8)

    Source:
        The operations are torchvision's, on Pillow images.
    """
    from torchvision.transforms import functional as F

    change = {
        "brightness": F.adjust_brightness,
        "contrast": F.adjust_contrast,
        "saturation": F.adjust_saturation,
        "hue": F.adjust_hue,
    }
    crop = (augmentation.top, augmentation.left, augmentation.height, augmentation.width)
    picture = F.resized_crop(image, *crop, size=[size, size])  # pyright: ignore[reportArgumentType]
    if augmentation.mirrored:
        picture = F.hflip(picture)
    for name, factor in augmentation.jitters:
        picture = change[name](picture, factor)
    return F.rgb_to_grayscale(picture, 3) if augmentation.gray else picture  # pyright: ignore[reportReturnType]


def _crop(uniform: Callable[[], float], width: int, height: int) -> tuple[int, int, int, int]:
    """Top, left, height and width; in the middle where no drawn shape fits into the image."""
    for _ in range(_TRIES):
        area = width * height * _between(uniform, *AREA)
        aspect = math.exp(_between(uniform, *map(math.log, ASPECT)))
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            return _below(uniform, height - rows + 1), _below(uniform, width - columns + 1), rows, columns
    narrowest, widest = ASPECT
    columns, rows = min(width, round(height * widest)), min(height, round(width / narrowest))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _between(uniform: Callable[[], float], low: float, high: float) -> float:
    return low + (high - low) * uniform()


def _below(uniform: Callable[[], float], count: int) -> int:
    return int(count * uniform())


def crops(images: Sequence[Tensor] | Tensor, augmentations: Sequence[Augmentation], size: int) -> Tensor:
    """Each image's crop as a square, mirrored where drawn, rounded to whole numbers as 8-bit images are.

    Args:
        images: n of [3, height, width] uint8, or one tensor of them.
        augmentations: drawn for each; their colours are not applied.
        size: side of the result, pixels.

    Returns:
        [n, 3, size, size] uint8 on the images' device.

    Example:
        >>> from fishr.data.images.augmentation import draw_augmentation
        >>> crops(torch.zeros(1, 3, 10, 20, dtype=torch.uint8), [draw_augmentation(0, 20, 10)], size=8).shape
        torch.Size([1, 3, 8, 8])

    Source:
        torchvision's resized_crop, bilinear and antialiased, and its hflip, on 8-bit tensors.
    """
    if isinstance(images, Tensor) and images.device.type != "cpu":
        return _together(images, augmentations, size)
    made = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for row, (image, drawn) in enumerate(zip(images, augmentations, strict=True)):
        cut = image[:, drawn.top : drawn.top + drawn.height, drawn.left : drawn.left + drawn.width]
        resized = F.interpolate(cut.unsqueeze(0), (size, size), mode="bilinear", antialias=True)
        made[row : row + 1] = resized.flip(3) if drawn.mirrored else resized
    return made


def _together(images: Tensor, augmentations: Sequence[Augmentation], size: int) -> Tensor:
    """Of images no larger than the result, so that every crop grows: nothing is left to antialias."""
    boxes = [(drawn.top, drawn.height, drawn.left, drawn.width) for drawn in augmentations]
    top, height, left, width = torch.tensor(boxes, dtype=torch.float32, device=images.device).unbind(1)
    mirrored = torch.tensor([drawn.mirrored for drawn in augmentations], device=images.device)
    rows, columns = _places(top, height, images.shape[2], size), _places(left, width, images.shape[3], size)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    grid = torch.stack(
        [columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)],
        dim=-1,
    )
    values = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values.round_().to(torch.uint8)


def _places(start: Tensor, length: Tensor, whole: int, size: int) -> Tensor:
    """Where each pixel of a side lies in the image, from -1 to 1 as ``grid_sample`` counts; never beyond the crop."""
    centres = torch.arange(size, device=start.device) + 0.5
    inside = (centres * (length[:, None] / size) - 0.5).clamp_(min=0)
    pixels = start[:, None] + torch.minimum(inside, length[:, None] - 1)
    return (2 * pixels + 1) / whole - 1
