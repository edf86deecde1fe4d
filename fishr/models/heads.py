"""Heads: from features to the logits that the loss takes."""

import torch
from attrs import frozen
from torch import nn

from fishr.errors import InputError
from fishr.models.linear import check_widths, hidden_layers, xavier_linear


@frozen
class LinearHead:
    """One linear layer; its per-domain statistics have a closed form.

    Example:
        >>> LinearHead()(4, 2, torch.Generator().manual_seed(0))
        Linear(in_features=4, out_features=2, bias=True)
    """

    def __call__(self, features: int, outputs: int, generator: torch.Generator) -> nn.Module:
        """Module from features [N, F] to logits [N, outputs], with weights drawn from the generator."""
        return xavier_linear(features, outputs, generator)


@frozen
class MLPHead:
    """Linear and ReLU layers, then a linear layer.

    Args:
        widths: features after each hidden layer, at least one layer.

    Raises:
        InputError: there is no hidden layer, or a width is below 1.

    Example:
        >>> head = MLPHead(widths=(3,))(4, 2, torch.Generator().manual_seed(0))
        >>> head(torch.zeros(5, 4)).shape
        torch.Size([5, 2])
    """

    widths: tuple[int, ...] = (390,)

    def __attrs_post_init__(self) -> None:
        """Refuse a head that would be linear, and layers without features."""
        if not self.widths:
            raise InputError("widths: got none, expected at least one hidden layer; use LinearHead for none")
        check_widths(self.widths)

    def __call__(self, features: int, outputs: int, generator: torch.Generator) -> nn.Module:
        """Module from features [N, F] to logits [N, outputs], with weights drawn from the generator."""
        hidden = hidden_layers(features, self.widths, generator)
        return nn.Sequential(*hidden, xavier_linear(self.widths[-1], outputs, generator))
