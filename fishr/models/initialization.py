"""First weights drawn from an explicit generator; torch's global generators stay as they are."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from fishr.seeding import seeded


@contextmanager
def seeded_by(generator: torch.Generator) -> Generator[None]:
    """Build modules on the CPU by torch's global generator, seeded by one draw of ``generator`` and restored."""
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    cpu = torch.device("cpu")
    with cpu, seeded(seed, cpu):
        yield


def xavier_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer with weights uniform on ±√(6 / (inputs + outputs)) and zero biases."""
    layer = nn.Linear(inputs, outputs, device="meta")
    # Neither skip_init nor to_empty: they import sympy, a third of a second.
    layer.weight, layer.bias = (
        nn.Parameter(torch.empty(p.shape, device=generator.device)) for p in (layer.weight, layer.bias)
    )
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def hidden_layers(inputs: int, widths: Sequence[int], generator: torch.Generator) -> list[nn.Module]:
    """Return alternating Linear and ReLU layers, one pair for each width."""
    layers: list[nn.Module] = []
    for before, after in zip((inputs, *widths), widths, strict=False):
        layers += [xavier_linear(before, after, generator), nn.ReLU()]
    return layers
