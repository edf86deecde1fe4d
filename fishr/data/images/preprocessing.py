"""The preprocessing of an image for a model: resized as a whole, then normalized."""

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen
from torch import Tensor

from fishr.checks import whole
from fishr.data.images.decoding import MEAN, STD, decode, normalize, pixels, resize, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

Channels = tuple[float, float, float]


@frozen
class Preprocessing:
    """Image of any size to input [3, size, size] float32: (x / 255 − mean) / std of each channel.

    The whole image is resized to a square, bilinear and antialiased; its proportions are not kept. It is the
    preprocessing of evaluation images, to the bit.

    Args:
        size: Side of an input, pixels.
        mean: Of red, green and blue, on a scale from 0 to 1; by default ImageNet's, as in torchvision.
        std: Standard deviation, likewise.

    Raises:
        InputError: The size is below 1; when called on a path, the file cannot be read as an image.

    Example:
        >>> from PIL import Image
        >>> white = Preprocessing(size=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))(Image.new("L", (30, 20), 255))
        >>> white.shape, white.unique()
        (torch.Size([3, 2, 2]), tensor([1.]))
    """

    size: int = field(validator=whole(1))
    mean: Channels = MEAN
    std: Channels = STD

    def __call__(self, image: "Image | Path | str") -> Tensor:
        """Return the input of a Pillow image, or of a file."""
        return self.normalized(pixels([self.resized(image)], self.size))[0]

    def resized(self, image: "Image | Path | str") -> "Image":
        """Return the RGB image of ``size``, before it is normalized."""
        return resize(decode(Path(image)) if isinstance(image, Path | str) else to_rgb(image), self.size)

    def normalized(self, images: Tensor) -> Tensor:
        """Return inputs [n, 3, size, size] of uint8 images of the same shape."""
        return normalize(images, mean=self.mean, std=self.std)
