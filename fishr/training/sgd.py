"""Gradient descent, with momentum or without."""

import torch
from attrs import field, frozen
from torch import Tensor
from torch.optim.sgd import sgd

from fishr.checks import number
from fishr.errors import InputError
from fishr.tensor_trees import each
from fishr.training.optimizers import (
    LARGEST,
    Gradients,
    Moments,
    Moved,
    OptimizerState,
    Parameters,
    of_given,
    on_copies,
)


@frozen
class SGD:
    """Gradient descent with torch's arithmetic: b ← momentum·b + g, w ← w − lr·b.

    Args:
        lr: learning rate.
        momentum: decay of the buffer b; 0 keeps none.
        weight_decay: adds ``weight_decay · w`` to the gradient.
        fused: use torch's fused kernel, which is faster on a GPU and rounds differently.
        nesterov: step by g + momentum·b instead of b; None: no.

    Raises:
        InputError: a number outside its range, or ``nesterov`` without momentum.

    Example:
        >>> optimizer, weights = SGD(lr=0.5), (torch.tensor([1.0]),)
        >>> optimizer.update((torch.tensor([1.0]),), optimizer.init(weights), weights)[0]
        (tensor([0.5000]),)
    """

    lr: float = field(validator=number(below=LARGEST, above=True))
    momentum: float = field(default=0.0, validator=number(below=1.0))
    weight_decay: float = field(default=0.0, validator=number(below=LARGEST))
    fused: bool = False
    nesterov: bool | None = None

    def __attrs_post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise InputError("nesterov: got true without momentum, expected a momentum greater than 0; set momentum")

    def init(self, parameters: Parameters) -> OptimizerState:
        """Return a zero buffer, or none without momentum."""
        moments = {"momentum": tuple(torch.zeros_like(p) for p in parameters)} if self.momentum else {}
        return OptimizerState((0,) * len(parameters), moments)

    def update(
        self, gradients: Gradients, state: OptimizerState, parameters: Parameters
    ) -> tuple[Parameters, OptimizerState]:
        """Return new weights and the next state, as ``Adam.update``."""
        return of_given(on_copies(self.in_place) if self.fused else self._moved, gradients, state, parameters)

    def in_place(self, weights: list[Tensor], given: list[Tensor], moments: Moments, counts: list[int]) -> None:
        """Change weights and moments by gradients, after so many updates, by torch's fused kernel."""
        # A zero buffer becomes the first gradient, with which torch.optim begins.
        buffers: list[Tensor | None] = [*moments.get("momentum", [None] * len(weights))]
        sgd(
            weights,
            given,
            buffers,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=self.lr,
            dampening=0.0,
            nesterov=bool(self.nesterov),
            maximize=False,
            fused=True,
        )

    def _moved(self, weights: list[Tensor], given: list[Tensor], moments: Moments, counts: list[int]) -> Moved:
        if self.weight_decay:
            given = each._foreach_add(given, weights, alpha=self.weight_decay)
        if self.momentum:
            buffers = each._foreach_mul(moments["momentum"], self.momentum)
            each._foreach_add_(buffers, given)
            moments = {"momentum": buffers}
            given = each._foreach_add(given, buffers, alpha=self.momentum) if self.nesterov else buffers
        return each._foreach_add(weights, given, alpha=-self.lr), moments
