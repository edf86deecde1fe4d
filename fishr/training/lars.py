"""Layer-wise adaptive rate scaling."""

from typing import Literal, get_args

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import number, one_of
from fishr.training.optimizers import LARGEST, Gradients, Moments, Moved, OptimizerState, Parameters, of_given

Form = Literal["paper", "domainbed"]


@frozen
class LARS:
    """Gradient descent whose steps are in proportion to the norm of each parameter: b ← momentum·b + λd, w ← w − lr·b.

    With d = g + weight_decay·w, of each parameter: λ = trust · ‖w‖ / (‖g‖ + weight_decay·‖w‖) in the paper, and
    λ = trust · ‖w‖ / ‖d‖ in DomainBed, where biases and other parameters of one axis have λ = 1 and no weight decay.
    Where a norm is 0, λ = 1. The learning rate multiplies the buffer b, as in torch's SGD; the paper accumulates
    lr · λd in it, which differs where the rate changes.

    Args:
        lr: learning rate.
        momentum: decay of the buffer b.
        weight_decay: adds ``weight_decay · w`` to the gradient.
        trust: length of a step in units of ‖w‖, at a learning rate of 1 and without momentum.
        form: "paper" or "domainbed", as above.

    Raises:
        InputError: a number outside its range, or another form.

    Example:
        >>> optimizer, weights = LARS(lr=1.0, trust=0.1), (torch.tensor([3.0, 4.0]),)
        >>> optimizer.update((torch.tensor([0.0, 20.0]),), optimizer.init(weights), weights)[0]
        (tensor([3.0000, 3.5000]),)

    Source: You, Gitman and Ginsburg, Large batch training of convolutional networks, 2017, algorithm 1.
    """

    lr: float = field(validator=number(below=LARGEST, above=True))
    momentum: float = field(default=0.9, validator=number(below=1.0))
    weight_decay: float = field(default=0.0, validator=number(below=LARGEST))
    trust: float = field(default=1e-3, validator=number(below=LARGEST, above=True))
    form: Form = field(default="paper", validator=one_of(*get_args(Form)))

    def init(self, parameters: Parameters) -> OptimizerState:
        """Return a zero buffer."""
        return OptimizerState((0,) * len(parameters), {"momentum": tuple(torch.zeros_like(p) for p in parameters)})

    def update(
        self, gradients: Gradients, state: OptimizerState, parameters: Parameters
    ) -> tuple[Parameters, OptimizerState]:
        """Return new weights and the next state; where a gradient is None, weights and buffer are unchanged."""

        def step(weights: list[Tensor], given: list[Tensor], moments: Moments, counts: list[int]) -> Moved:
            slopes = map(self._direction, weights, given)
            buffers = [(b * self.momentum).add_(s) for b, s in zip(moments["momentum"], slopes, strict=True)]
            return [w.sub(b, alpha=self.lr) for w, b in zip(weights, buffers, strict=True)], {"momentum": buffers}

        return of_given(step, gradients, state, parameters)

    def _direction(self, weight: Tensor, gradient: Tensor) -> Tensor:
        """Return λd."""
        if self.form == "domainbed" and weight.ndim < 2:
            return gradient
        decayed = gradient + self.weight_decay * weight
        size, length = weight.norm(), decayed.norm()
        if self.form == "paper":
            length = gradient.norm() + self.weight_decay * size
        return decayed * torch.where((size > 0) & (length > 0), self.trust * size / length, 1.0)
