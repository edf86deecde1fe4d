"""Decode image files to 8-bit RGB, and turn pixels into network inputs."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fishr.errors import InputError, reason

if TYPE_CHECKING:
    from PIL.Image import Image

Array = NDArray[np.uint8]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
# Of torchvision's ImageNet weights.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Formats in which 16-bit gray has a defined range. Pillow opens it as "I;16" and its like, PPM and older PNG as "I".
_SIXTEEN_BITS = {"PNG": ("I;16", "I"), "PPM": ("I",), "TIFF": ("I;16", "I;16B"), "JPEG2000": ("I;16",)}
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339


def decode(path: Path, content: bytes | None = None) -> "Image":
    """Return an image in 8-bit RGB, without alpha, of a file or of the bytes that were read of it."""
    # 16 bits keep their high byte, 12 bits are shifted by 4.
    from PIL import Image

    try:
        with Image.open(path if content is None else BytesIO(content)) as image:
            image.load()
            return to_rgb(image)
    # Decoders raise anything on damaged files.
    except Exception as error:
        raise InputError(f"{path}: cannot be read as an image ({cause(error)}); delete or replace it") from error


def to_rgb(image: "Image") -> "Image":
    """Return an image in 8-bit RGB, without alpha."""
    image = _eight_bits(image)
    if "transparency" in image.info:
        # Pillow would warn of a palette's alpha.
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def brightest(path: Path) -> int | None:
    """Return the largest gray value of a PNG or TIFF of 16 bits before it is scaled; None for other files."""
    from PIL import Image

    with Image.open(path) as image:
        sixteen = image.format in ("PNG", "TIFF") and image.mode in _SIXTEEN_BITS[image.format]
        return int(np.asarray(image).max()) if sixteen and getattr(image, "tag_v2", {}).get(_BITS) != (12,) else None


def as_image(image: "Image | Array") -> "Image":
    from PIL import Image

    return Image.fromarray(image) if isinstance(image, np.ndarray) else image


def resize(image: "Image", size: int, interpolation: Interpolation = "bilinear", antialias: bool = True) -> "Image":
    """Return the whole image as a square, by Pillow or, without antialiasing, by torchvision."""
    from PIL.Image import Resampling

    if antialias or interpolation == "nearest":
        return image.resize((size, size), Resampling[interpolation.upper()])
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    mode = InterpolationMode(interpolation)
    made = transforms.resize(transforms.pil_to_tensor(image), [size, size], mode, antialias=False)
    return transforms.to_pil_image(made)


def pixels(images: "Sequence[Image | Array]", size: int) -> Tensor:
    """Return images [size, size, 3] as one tensor [n, 3, size, size] uint8, channels last in memory."""
    made = np.empty((len(images), size, size, 3), np.uint8)
    for row, image in enumerate(images):
        made[row] = np.asarray(image)
    return torch.from_numpy(made).permute(0, 3, 1, 2)


def normalize(
    images: Tensor, out: Tensor | None = None, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> Tensor:
    """Return uint8 images [n, 3, height, width] as float32 inputs, by default in ImageNet's normalization."""
    if out is None:
        out = torch.empty(images.shape, device=images.device)
    center, scale = (torch.tensor(each, device=images.device).view(3, 1, 1) for each in (mean, std))
    return out.copy_(images).div_(255).sub_(center).div_(scale)


def cause(error: BaseException) -> str:
    """Return why a file is no image, in a few words."""
    from PIL import UnidentifiedImageError

    return "not an image" if isinstance(error, UnidentifiedImageError) else reason(error)


def _eight_bits(image: "Image") -> "Image":
    """Return the image with 8 bits a channel, where Pillow would clip values at 255."""
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
