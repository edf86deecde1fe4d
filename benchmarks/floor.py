"""The least that a penalty's step can cost: its matrix products, and reading and writing what it must."""

from collections.abc import Callable

import torch

from benchmarks.ways import Size

_FLOAT = 4


def products(size: Size, device: torch.device) -> Callable[[], None]:
    """Plain products of the sizes that a step needs, nothing recomputed.

    Of each layer: the head's three, Σ δz and Σ δ²z² of each domain, and two by δ and two by z on the way back.
    """
    layers = [_products_of_layer(size.domains, size.samples, *layer, device) for layer in size.layers]

    def step() -> None:
        for layer in layers:
            layer()

    return step


def _products_of_layer(domains: int, n: int, width: int, outputs: int, device: torch.device) -> Callable[[], None]:
    rows = domains * n
    z, delta = torch.randn(rows, width, device=device), torch.randn(rows, outputs, device=device)
    weight, logits, by_z, by_weight = (torch.randn_like(x) for x in (delta.T @ z, delta, z, delta.T @ z))
    by_domain, of_domain = z.view(domains, n, width), delta.view(domains, n, outputs)
    statistic = torch.randn(domains, outputs, width, device=device)
    to_z, to_delta = torch.empty_like(by_domain), torch.empty_like(of_domain)

    def step() -> None:
        torch.mm(z, weight.T, out=logits)
        torch.mm(delta, weight, out=by_z)
        torch.mm(delta.T, z, out=by_weight)
        for _ in range(2):
            torch.bmm(of_domain.mT, by_domain, out=statistic)
            torch.bmm(by_domain, statistic.mT, out=to_delta)
            torch.bmm(of_domain, statistic, out=to_z)

    return step


def bytes_moved(size: Size, ema: float) -> int:
    """Of float32: features and weight read on both ways, their gradients written, a memory read and written.

    The products' own traffic is in their time.
    """
    rows = size.domains * size.samples * sum(inputs for inputs, _ in size.layers)
    head = sum(inputs * outputs for inputs, outputs in size.layers)
    memory = 2 * size.domains * head if ema else 0
    return _FLOAT * (3 * rows + 3 * head + memory)
