"""A featurizer of fully connected layers."""

from math import prod

import torch
from attrs import frozen
from torch import nn

from fishr.models.linear import check_widths, hidden_layers


@frozen
class MLP:
    """Featurizer that flattens its input and passes it through Linear and ReLU layers.

    Args:
        widths: features after each layer; empty for a featurizer that only flattens.

    Raises:
        InputError: a width is below 1.

    Example:
        >>> mlp = MLP(widths=(5, 4))
        >>> featurizer = mlp((2, 8, 8), torch.Generator().manual_seed(0))
        >>> featurizer(torch.zeros(3, 2, 8, 8)).shape, mlp.features((2, 8, 8))
        (torch.Size([3, 4]), 4)

    Source:
        The default is the network of Arjovsky et al., arXiv 1907.02893, section 5.2, without its last layer.
    """

    widths: tuple[int, ...] = (390, 390)

    def __attrs_post_init__(self) -> None:
        """Refuse layers without features."""
        check_widths(self.widths)

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Module from inputs [N, *shape] to features [N, F], with weights drawn from the generator."""
        return nn.Sequential(nn.Flatten(), *hidden_layers(prod(shape), self.widths, generator))

    def features(self, shape: tuple[int, ...]) -> int:
        """F, the number of features for inputs [N, *shape]."""
        return self.widths[-1] if self.widths else prod(shape)
