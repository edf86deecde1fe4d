"""What a featurizer is, and the inputs of those that look at images."""

from typing import Protocol

import torch
from torch import nn

from fishr.errors import InputError


class Featurizer(Protocol):
    """Frozen settings whose call builds the module from inputs to features.

    Any frozen attrs class with these two methods is one; it inherits nothing.

    Example:
        >>> from attrs import frozen
        >>> @frozen
        ... class MeanColor:
        ...     def __call__(self, shape, generator):
        ...         return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        ...
        ...     def features(self, shape):
        ...         return shape[0]
        >>> own: Featurizer = MeanColor()
        >>> own((3, 8, 8), torch.Generator())(torch.ones(2, 3, 8, 8)).shape, own.features((3, 8, 8))
        (torch.Size([2, 3]), 3)
    """

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Module from inputs [N, *shape] to features [N, F], on the generator's device.

        Args:
            shape: of one input.
            generator: the only source of the first weights; torch's global generators stay as they are.
        """
        ...

    def features(self, shape: tuple[int, ...]) -> int:
        """F, the number of features for inputs [N, *shape]."""
        ...


def image_channels(network: str, shape: tuple[int, ...]) -> int:
    """C of inputs that must be images.

    Args:
        network: how the message calls what wants images.
        shape: of one input.

    Raises:
        InputError: the shape is not (C, H, W) with at least one of each.

    Example:
        >>> image_channels("MNISTCNN", (2, 28, 28))
        2
        >>> image_channels("MNISTCNN", (64,))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: MNISTCNN: got inputs of shape (64,), expected images (channels, height, width); use MLP
    """
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{network}: got inputs of shape {shape}, expected images (channels, height, width); use MLP")
    return shape[0]
