"""A linear layer that starts as the IRM protocol starts it, from an explicit generator."""

from collections.abc import Sequence

import torch
from torch import nn

from fishr.errors import InputError


def xavier_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Linear layer with Xavier-uniform weights and zero biases.

    Weights are uniform on [-a, a] with a = sqrt(6 / (inputs + outputs)).

    Args:
        inputs: features that come in, at least 1.
        outputs: features that go out, at least 1.
        generator: the only source of randomness; the layer lies on its device.

    Returns:
        nn.Linear with bias.

    Example:
        >>> layer = xavier_linear(3, 2, torch.Generator().manual_seed(0))
        >>> layer.weight.shape, layer.bias.abs().max().item()
        (torch.Size([2, 3]), 0.0)

    Source:
        X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.
    """
    # Made without storage first: nn.Linear would draw its own initial weights from the global generator.
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device=generator.device)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def hidden_layers(inputs: int, widths: Sequence[int], generator: torch.Generator) -> list[nn.Module]:
    """Linear and ReLU in turn, one pair a width.

    Args:
        inputs: features that come in.
        widths: features after each pair.
        generator: the only source of randomness.

    Returns:
        Two modules a width, in order.

    Example:
        >>> [type(layer).__name__ for layer in hidden_layers(4, (3, 2), torch.Generator())]
        ['Linear', 'ReLU', 'Linear', 'ReLU']
    """
    layers: list[nn.Module] = []
    for before, after in zip((inputs, *widths), widths, strict=False):
        layers += [xavier_linear(before, after, generator), nn.ReLU()]
    return layers


def check_widths(widths: Sequence[int]) -> None:
    """Refuse layers without features.

    Args:
        widths: features of each hidden layer, each at least 1.

    Raises:
        InputError: a width is below 1.

    Example:
        >>> check_widths((390, 0))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: widths: got 0, expected at least 1 feature in each layer
    """
    for width in widths:
        if width < 1:
            raise InputError(f"widths: got {width}, expected at least 1 feature in each layer")
