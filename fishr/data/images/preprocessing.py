"""The preprocessing of an image for a model: resized as a whole, then normalized."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from attrs import field, frozen
from torch import Tensor

from fishr.checks import one_of, whole
from fishr.data.images.decoding import MEAN, STD, Interpolation, decode, normalize, pixels, resize, to_rgb
from fishr.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Channels = tuple[float, float, float]


def _channels(record: object, attribute: Any, values: Channels) -> None:
    above = attribute.name == "std"
    numbers = isinstance(values, tuple | list) and len(values) == 3  # pyright: ignore[reportUnnecessaryIsInstance]
    if not numbers or not all(isfinite(value) and (value > 0 or not above) for value in values):
        expected = "three numbers greater than 0" if above else "three finite numbers"
        raise InputError(f"{attribute.name}: got {values!r}, expected {expected}, of red, green and blue")


@frozen
class Preprocessing:
    """Image of any size to input [3, size, size] float32: (x / 255 − mean) / std of each channel.

    The whole image is resized to a square; its proportions are not kept. It is the preprocessing of evaluation images,
    to the bit. With ``antialias``, Pillow resizes, as torchvision does with Pillow images; without, torchvision
    resizes 8-bit pixels. "nearest" is Pillow's, which torch calls "nearest-exact"; it has no antialiasing.

    Args:
        size: Side of an input, pixels.
        mean: Of red, green and blue, on a scale from 0 to 1; by default ImageNet's, as in torchvision.
        std: Standard deviation, likewise.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos".
        antialias: Average over the pixels that a smaller image merges.

    Raises:
        InputError: The size is below 1, mean or std are not three numbers, or "lanczos" is not antialiased; when called
            on a path, the file cannot be read as an image.

    Example:
        >>> from PIL import Image
        >>> white = Preprocessing(size=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))(Image.new("L", (30, 20), 255))
        >>> white.shape, white.unique()
        (torch.Size([3, 2, 2]), tensor([1.]))
    """

    size: int = field(default=224, validator=whole(1))
    mean: Channels = field(default=MEAN, validator=_channels)
    std: Channels = field(default=STD, validator=_channels)
    interpolation: Interpolation = field(default="bilinear", validator=one_of(*get_args(Interpolation)))
    antialias: bool = True

    def __attrs_post_init__(self) -> None:
        if self.interpolation == "lanczos" and not self.antialias:
            raise InputError('antialias: got False with "lanczos", expected True; or set interpolation to "bicubic"')

    def __call__(self, image: "Image | Path | str") -> Tensor:
        """Return the input of a Pillow image, or of a file."""
        return self.normalized(pixels([self.resized(image)], self.size))[0]

    @property
    def resizing(self) -> str:
        """How images are resized, in words, as image caches keep it."""
        smooth = self.antialias and self.interpolation != "nearest"
        return f"{self.interpolation}, antialiased" if smooth else self.interpolation

    def resized(self, image: "Image | Path | str") -> "Image":
        """Return the RGB image of ``size``, before it is normalized."""
        whole_image = decode(Path(image)) if isinstance(image, Path | str) else to_rgb(image)
        return resize(whole_image, self.size, self.interpolation, self.antialias)

    def normalized(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Return inputs [n, 3, size, size] of uint8 images of the same shape; in ``out``."""
        return normalize(images, out, self.mean, self.std)
