"""An image file as RGB pixels, and pixels as a network's inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fishr.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Array = NDArray[np.uint8]
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Formats in which 16-bit gray has a defined range. Pillow opens it as "I;16" and its like, PPM and older PNG as "I".
_SIXTEEN_BITS = {"PNG": ("I;16", "I"), "PPM": ("I",), "TIFF": ("I;16", "I;16B"), "JPEG2000": ("I;16",)}
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339


def decode(path: Path) -> "Image":
    """Return a file's image in 8-bit RGB.

    Color and gray images of 8 bits are converted as Pillow does, without alpha. Of 16 bits the high byte is taken,
    ``v >> 8``, which is what Pillow takes of 16-bit color; a TIFF of 12 bits is shifted by 4. Gray levels that a TIFF
    stores with white as 0 are inverted. Floats, 32-bit and signed integers have no range that all programs agree on,
    so they are refused.

    Args:
        path: of a file in a format that Pillow reads.

    Raises:
        InputError: it cannot be read, or its pixels have no defined range.

    Example:
        >>> decode(Path("nowhere.jpg"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.jpg: cannot be read as an image (no such file or directory); delete or \
replace it
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            # An alpha channel is dropped; Pillow would warn of a palette's.
            image.info.pop("transparency", None)
            return _eight_bits(image).convert("RGB")
    # Decoders raise whatever a damaged file makes them stumble over.
    except Exception as error:
        raise InputError(f"{path}: cannot be read as an image ({reason(error)}); delete or replace it") from error


def brightest(path: Path) -> int | None:
    """Return the largest gray value of a PNG or TIFF of 16 bits before it is scaled; None of any other file."""
    from PIL import Image

    with Image.open(path) as image:
        sixteen = image.format in ("PNG", "TIFF") and image.mode in _SIXTEEN_BITS[image.format]
        return int(np.asarray(image).max()) if sixteen and getattr(image, "tag_v2", {}).get(_BITS) != (12,) else None


def resized(image: "Image", size: int) -> "Image":
    """The whole image as a square, bilinear and antialiased; its proportions are not kept.

    Args:
        image: RGB.
        size: side of the square, pixels.

    Example:
        >>> from PIL import Image
        >>> resized(Image.new("RGB", (20, 10)), 8).size
        (8, 8)
    """
    from PIL.Image import Resampling

    return image.resize((size, size), Resampling.BILINEAR)


def pixels(images: "Sequence[Image | Array]", size: int) -> Tensor:
    """Images as numbers.

    Args:
        images: n, RGB, size × size; or such arrays [size, size, 3].
        size: side of the images, pixels.

    Returns:
        [n, 3, size, size] uint8, channels last in memory.

    Example:
        >>> from PIL import Image
        >>> pixels([Image.new("RGB", (2, 2), "white")], 2)[0, :, 0, 0]
        tensor([255, 255, 255], dtype=torch.uint8)
    """
    made = np.empty((len(images), size, size, 3), np.uint8)
    for row, image in enumerate(images):
        made[row] = np.asarray(image)
    return torch.from_numpy(made).permute(0, 3, 1, 2)


def normalized(images: "Sequence[Image]", size: int) -> Tensor:
    """Inputs of a network that was trained on ImageNet: from 0 to 1, less the mean, by the standard deviation.

    Args:
        images: n, RGB, size × size.
        size: side of the images, pixels.

    Returns:
        [n, 3, size, size] float32.

    Example:
        >>> from PIL import Image
        >>> normalized([Image.new("RGB", (2, 2), "white")], 2)[0, :, 0, 0]
        tensor([2.2489, 2.4286, 2.6400])
    """
    return normalized_pixels(pixels(images, size))


def normalized_pixels(images: Tensor, out: Tensor | None = None) -> Tensor:
    """The same of 8-bit pixels, where they lie.

    Args:
        images: [n, 3, height, width] uint8.
        out: the same shape, float32, where the result is to lie; None: a new tensor.

    Returns:
        The same shape, float32, on the same device.

    Example:
        >>> normalized_pixels(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))[0, :, 0, 0]
        tensor([2.2489, 2.4286, 2.6400])

    Source:
        The means and deviations that torchvision's ImageNet weights are given with.
    """
    if out is None:
        out = torch.empty(images.shape, device=images.device)
    mean, std = (torch.tensor(each, device=images.device).view(3, 1, 1) for each in (MEAN, STD))
    return out.copy_(images).div_(255).sub_(mean).div_(std)


def _eight_bits(image: "Image") -> "Image":
    """The same image with 8 bits a channel, where Pillow itself would clip its values at 255."""
    from PIL import Image

    kind, tags = str(image.format), getattr(image, "tag_v2", {})
    if image.mode[0] not in "IF" and 2 not in tags.get(_SAMPLE_FORMAT, ()):
        return image
    if image.mode not in _SIXTEEN_BITS.get(kind, ()):
        raise ValueError(
            f"{kind} pixels of mode {image.mode}, floats, 32-bit or signed integers, have no defined range; "
            "save it with unsigned 8 or 16 bits"
        )
    values = np.asarray(image) >> (tags.get(_BITS, (16,))[0] - 8)
    return Image.fromarray((255 - values if tags.get(_PHOTOMETRIC) == 0 else values).astype(np.uint8))


def reason(error: BaseException) -> str:
    """Why a file is no image, in a few words.

    Example:
        >>> reason(OSError("image file is truncated\\n(3 bytes not processed)"))
        'image file is truncated (3 bytes not processed)'
    """
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    told = getattr(error, "strerror", None)
    return str(told).lower() if told else " ".join(str(error).split()) or type(error).__name__
