"""Wide residual networks for small images."""

import torch
from attrs import field, frozen
from attrs.validators import optional
from torch import Tensor, nn
from torch.nn.functional import relu

from fishr.checks import layer_names, number, whole
from fishr.errors import InputError
from fishr.models.featurizers import image_channels
from fishr.models.frozen import freeze_layers

_STEM = 16
_STRIDES = (1, 2, 2)


@frozen
class WideResNet:
    """Featurizer of three groups of pre-activation residual blocks, of 16k, 32k and 64k channels.

    For 32x32 images: the last two groups halve the image, and the features are averaged over the rest. Batch
    normalization trains.

    Args:
        depth: Number of layers, 6n + 4 for n blocks a group.
        width: The factor k.
        dropout: Dropout rate between the two convolutions of each block, while training.
        frozen: Names of layers below the network, as "0", that keep their first weights, see ``freeze_layers``.

    Raises:
        InputError: A depth that is not 6n + 4, a width below 1, or a rate outside 0 to 1.

    Example:
        >>> network = WideResNet(depth=10, width=1)
        >>> featurizer = network((3, 32, 32), torch.Generator().manual_seed(0))
        >>> featurizer(torch.zeros(2, 3, 32, 32)).shape, WideResNet().features((3, 32, 32))
        (torch.Size([2, 64]), 128)

    Source:
        Zagoruyko and Komodakis, Wide residual networks, BMVC 2016 (arXiv 1605.07146).
        First weights: He et al., Delving deep into rectifiers, ICCV 2015, by the fan-out of each convolution.
    """

    depth: int = 16
    width: int = field(default=2, validator=whole(1))
    dropout: float = field(default=0.0, validator=number(below=1.0))
    frozen: tuple[str, ...] | None = field(default=None, validator=optional(layer_names))

    def __attrs_post_init__(self) -> None:
        if self.depth < 10 or self.depth % 6 != 4:
            raise InputError(f"depth: got {self.depth}, expected 6n + 4 layers such as 10, 16, 28 or 40")

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from images [N, C, H, W] to features [N, 64k], with weights drawn from the generator."""
        # The meta device first: convolutions would draw their own initial weights from the global generator.
        with torch.device("meta"):
            network = nn.Sequential(*self._layers(image_channels("WideResNet", shape)))
        network.to_empty(device=generator.device)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        return freeze_layers(network, self.frozen or ())

    def features(self, shape: tuple[int, ...]) -> int:
        """Return 64k, for images of any size."""
        return _STEM * self.width * 2 ** (len(_STRIDES) - 1)

    def _layers(self, channels: int) -> list[nn.Module]:
        layers: list[nn.Module] = [_convolution(channels, _STEM, 1)]
        before = _STEM
        for group, stride in enumerate(_STRIDES):
            after = _STEM * self.width * 2**group
            for block in range((self.depth - 4) // 6):
                layers.append(_Block(before, after, 1 if block else stride, self.dropout))
                before = after
        return [*layers, nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]


class _Block(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))); where the size changes, a 1x1 convolution carries relu(norm(x))."""

    def __init__(self, before: int, after: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = _convolution(before, after, stride)
        self.norm2 = nn.BatchNorm2d(after)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = _convolution(after, after, 1)
        same = before == after and stride == 1
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        active = relu(self.norm1(inputs))
        residual = self.conv2(self.dropout(relu(self.norm2(self.conv1(active)))))
        return residual + (inputs if self.shortcut is None else self.shortcut(active))


def _convolution(before: int, after: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
