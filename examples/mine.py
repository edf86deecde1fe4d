"""A data set, a loss, a schedule and an optimizer of your own, named in mine.toml.

Run: fishr train mine.toml --plugin mine
"""

from math import exp
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fishr.data import Domain, Domains


@frozen
class Rings:
    """Points on two rings, the classes; each domain has noise of its own and a third feature that favors a class."""

    samples: int = 200

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Draw the domains from the seed alone: a resumed run draws the same."""
        generator = torch.Generator().manual_seed(seed)
        quiet, noisy, turned = (
            self._domain(name, noise, favor, generator)
            for name, noise, favor in (("quiet", 0.1, 0.9), ("noisy", 0.3, 0.7), ("turned", 0.1, -0.9))
        )
        return Domains(training=(quiet, noisy), evaluation=(turned,), classes=2)

    def _domain(self, name: str, noise: float, favor: float, generator: torch.Generator) -> Domain:
        labels = torch.arange(self.samples) % 2
        angle = 2 * torch.pi * torch.rand(self.samples, generator=generator)
        rings = (1.0 + labels).unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], dim=1)
        inputs = torch.cat([rings, favor * (2.0 * labels - 1).unsqueeze(1)], dim=1)
        return Domain(name, inputs + noise * torch.randn(inputs.shape, generator=generator), labels)


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    """Return cross-entropy with smoothed labels, [N]: one number a sample, never their mean."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)


def ramp(step: int) -> float:
    """Return the weight of a penalty at a step: almost 0 at first, 10 in the end."""
    return 10 / (1 + exp((100 - step) / 10))


@frozen
class SignDescent:
    """Step against the sign of a moving average of the gradient, as Lion does: no method changes what it is given."""

    lr: float = 0.01
    beta: float = 0.9

    def init(self, parameters: tuple[Tensor, ...]) -> Any:
        """Return the state before the first update: tensors, numbers, tuples and dicts, which a checkpoint holds."""
        return {"average": tuple(map(torch.zeros_like, parameters))}

    @torch.no_grad()
    def update(self, gradients: tuple[Tensor | None, ...], state: Any, parameters: tuple[Tensor, ...]) -> Any:
        """Return new parameters and the next state; a gradient is None where the loss does not depend on it."""
        average = tuple(
            mean if gradient is None else torch.lerp(gradient, mean, self.beta)
            for gradient, mean in zip(gradients, state["average"], strict=True)
        )
        moved = tuple(weight - self.lr * mean.sign() for weight, mean in zip(parameters, average, strict=True))
        return moved, {"average": average}
