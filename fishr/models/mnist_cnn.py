"""The small convolutional network that DomainBed uses on MNIST."""

import torch
from attrs import frozen
from torch import nn

from fishr.models.featurizer import image_channels
from fishr.models.seeding import seeded_by

_WIDTHS = (64, 128, 128, 128)
_STRIDES = (1, 2, 1, 1)
_GROUPS = 8


@frozen
class MNISTCNN:
    """Featurizer of four 3x3 convolutions, each with ReLU and group normalization, averaged over the image.

    First weights are torch's default: uniform on ±1/√(inputs of an output).

    Example:
        >>> cnn = MNISTCNN()
        >>> featurizer = cnn((2, 28, 28), torch.Generator().manual_seed(0))
        >>> featurizer(torch.zeros(3, 2, 28, 28)).shape, cnn.features((2, 28, 28))
        (torch.Size([3, 128]), 128)

    Source:
        The network of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021), appendix D.
    """

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Module from images [N, C, H, W] to features [N, 128], with weights drawn from the generator.

        Raises:
            InputError: inputs that are no images.
        """
        channels = image_channels("MNISTCNN", shape)
        layers: list[nn.Module] = []
        with seeded_by(generator):
            for before, after, stride in zip((channels, *_WIDTHS), _WIDTHS, _STRIDES, strict=False):
                layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.ReLU(), nn.GroupNorm(_GROUPS, after)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).to(generator.device)

    def features(self, shape: tuple[int, ...]) -> int:
        """128, for images of any size."""
        return _WIDTHS[-1]
