"""A featurizer for inputs that are features already: it flattens them, and drops some while training."""

from math import prod

import torch
from attrs import frozen
from torch import nn

from fishr.errors import InputError


@frozen
class FeatureDropout:
    """Featurizer that hands its inputs on, each with probability ``rate`` set to 0 and the rest scaled up.

    Args:
        rate: share of features that a training step drops; evaluation drops none.

    Raises:
        InputError: a rate outside 0 to 1.

    Example:
        >>> featurizer = FeatureDropout(rate=0.5)((4,), torch.Generator())
        >>> sorted(set(featurizer(torch.ones(100, 4)).flatten().tolist())), FeatureDropout().features((4,))
        ([0.0, 2.0], 4)
    """

    rate: float = 0.0

    def __attrs_post_init__(self) -> None:
        """Refuse to drop everything."""
        check_rate("rate", self.rate)

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Module from inputs [N, *shape] to features [N, F]; it has no weights to draw."""
        return nn.Sequential(nn.Flatten(), *([nn.Dropout(self.rate)] if self.rate else []))

    def features(self, shape: tuple[int, ...]) -> int:
        """F, the number of features for inputs [N, *shape]."""
        return prod(shape)


def check_rate(name: str, rate: float) -> None:
    """Refuse a rate of dropout that is none, or that drops everything.

    Args:
        name: how the message calls it.
        rate: share that is dropped, at least 0 and less than 1.

    Raises:
        InputError: a rate outside 0 to 1.

    Example:
        >>> check_rate("dropout", 1.0)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: dropout: got 1.0, expected at least 0 and less than 1
    """
    if not 0 <= rate < 1:
        raise InputError(f"{name}: got {rate}, expected at least 0 and less than 1")
