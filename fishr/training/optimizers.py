"""Optimizers as pure functions: ``init(parameters)`` and ``update(gradients, state, parameters)``.

They are torch's own functional Adam and SGD on copies, so that the results have the bits of ``torch.optim`` and the
arguments do not change.
"""

from typing import Any, Protocol, cast

import torch
from attrs import field, frozen
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from fishr.checks import number
from fishr.errors import InputError
from fishr.training.tensor_trees import require_tree

Parameters = tuple[Tensor, ...]
Gradients = tuple[Tensor | None, ...]


@frozen(eq=False)
class OptimizerState:
    """State of an optimizer."""

    steps: tuple[int, ...]  # updates each parameter has had with a gradient
    moments: dict[str, tuple[Tensor, ...]]  # by the optimizer's own names, one tensor for each parameter


class Optimizer(Protocol):
    """Two pure functions; the state is part of a checkpoint."""

    def init(self, parameters: Parameters, /) -> Any:
        """Return the state before the first update: tensors, numbers and None in tuples, lists and dicts."""
        ...

    def update(self, gradients: Gradients, state: Any, parameters: Parameters, /) -> tuple[Parameters, Any]:
        """Return new parameters and the state after the update; a gradient is None where there is none."""
        ...


def updated(optimizer: Optimizer, gradients: Gradients, state: Any, parameters: Parameters) -> tuple[Parameters, Any]:
    """Return an optimizer's update; refuse one that is no such pair."""
    found: Any = optimizer.update(gradients, state, parameters)
    moved = cast(Parameters, found[0]) if isinstance(found, tuple) and len(cast(Parameters, found)) == 2 else ()
    if [*map(_shape, moved)] != [*map(_shape, parameters)]:
        raise InputError(
            f"{type(optimizer).__name__}: got {len(moved)} parameters from update, expected a pair: new parameters of "
            f"the shapes of the {len(parameters)} given, and the next state"
        )
    if not isinstance(found[1], OptimizerState):
        require_tree(found[1], "optimizer state")
    return found


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def _betas(record: object, attribute: object, value: tuple[float, float]) -> None:
    if len(value) != 2 or not all(0 <= beta < 1 for beta in value):
        raise InputError(f"betas: got {value}, expected two numbers of at least 0 and less than 1")


@frozen
class Adam:
    """Adam with torch's arithmetic: m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², w ← w − lr·m̂/(√v̂ + eps).

    Args:
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the denominator.
        weight_decay: adds ``weight_decay · w`` to the gradient.
        fused: use torch's fused kernel, which is faster on a GPU and rounds differently.

    Raises:
        InputError: a number outside its range.

    Example:
        >>> optimizer, weights = Adam(lr=0.1), (torch.tensor([1.0]),)
        >>> moved, state = optimizer.update((torch.tensor([2.0]),), optimizer.init(weights), weights)
        >>> moved, state.steps
        ((tensor([0.9000]),), (1,))

    Source: Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015.
    """

    lr: float = field(validator=number(above=True))
    betas: tuple[float, float] = field(default=(0.9, 0.999), validator=_betas)
    eps: float = field(default=1e-8, validator=number())
    weight_decay: float = field(default=0.0, validator=number())
    fused: bool = False

    def init(self, parameters: Parameters) -> OptimizerState:
        """Return zero moments."""
        zeros = tuple(torch.zeros_like(p) for p in parameters)
        return OptimizerState((0,) * len(parameters), {"first": zeros, "second": zeros})

    @torch.no_grad()
    def update(
        self, gradients: Gradients, state: OptimizerState, parameters: Parameters
    ) -> tuple[Parameters, OptimizerState]:
        """Return new weights and the next state; where a gradient is None, weights and moments are unchanged."""
        taken = [index for index, gradient in enumerate(gradients) if gradient is not None]
        weights = _copies(parameters, taken)
        first = _copies(state.moments["first"], taken)
        second = _copies(state.moments["second"], taken)
        adam(
            weights,
            [gradient for gradient in gradients if gradient is not None],
            first,
            second,
            [],
            # The fused kernel reads them where the weights are.
            [torch.tensor(float(state.steps[i]), device=weights[0].device if self.fused else None) for i in taken],
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=self.lr,
            weight_decay=self.weight_decay,
            eps=self.eps,
            maximize=False,
            fused=self.fused or None,
        )
        moments = {
            "first": _merged(state.moments["first"], taken, first),
            "second": _merged(state.moments["second"], taken, second),
        }
        return _merged(parameters, taken, weights), OptimizerState(_counted(state.steps, taken), moments)


@frozen
class SGD:
    """Gradient descent with torch's arithmetic: b ← momentum·b + g, w ← w − lr·b.

    Args:
        lr: learning rate.
        momentum: decay of the buffer b; 0 keeps none.
        weight_decay: adds ``weight_decay · w`` to the gradient.
        fused: use torch's fused kernel, which is faster on a GPU and rounds differently.

    Raises:
        InputError: a number outside its range.

    Example:
        >>> optimizer, weights = SGD(lr=0.5), (torch.tensor([1.0]),)
        >>> optimizer.update((torch.tensor([1.0]),), optimizer.init(weights), weights)[0]
        (tensor([0.5000]),)
    """

    lr: float = field(validator=number(above=True))
    momentum: float = field(default=0.0, validator=number(below=1.0))
    weight_decay: float = field(default=0.0, validator=number())
    fused: bool = False

    def init(self, parameters: Parameters) -> OptimizerState:
        """Return a zero buffer, or none without momentum."""
        moments = {"momentum": tuple(torch.zeros_like(p) for p in parameters)} if self.momentum else {}
        return OptimizerState((0,) * len(parameters), moments)

    @torch.no_grad()
    def update(
        self, gradients: Gradients, state: OptimizerState, parameters: Parameters
    ) -> tuple[Parameters, OptimizerState]:
        """Return new weights and the next state, as ``Adam.update``."""
        taken = [index for index, gradient in enumerate(gradients) if gradient is not None]
        weights = _copies(parameters, taken)
        # As in torch.optim the first update takes the gradient itself as the buffer; None requests that.
        buffers: list[Tensor | None] = [None] * len(taken)
        if self.momentum:
            copies = _copies(state.moments["momentum"], taken)
            buffers = [copy if state.steps[index] else None for index, copy in zip(taken, copies, strict=True)]
        given = [gradient for gradient in gradients if gradient is not None]
        # The fused kernel takes either first updates or later ones.
        groups = [
            [place for place, buffer in enumerate(buffers) if (buffer is None) is first] for first in (True, False)
        ]
        for places in groups:
            some = [buffers[place] for place in places]
            sgd(
                [weights[place] for place in places],
                [given[place] for place in places],
                some,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                lr=self.lr,
                dampening=0.0,
                nesterov=False,
                maximize=False,
                fused=self.fused or None,
            )
            for place, buffer in zip(places, some, strict=True):
                buffers[place] = buffer
        moments: dict[str, tuple[Tensor, ...]] = {}
        if self.momentum:
            filled = [buffer for buffer in buffers if buffer is not None]
            moments = {"momentum": _merged(state.moments["momentum"], taken, filled)}
        return _merged(parameters, taken, weights), OptimizerState(_counted(state.steps, taken), moments)


def _copies(tensors: Parameters, taken: list[int]) -> list[Tensor]:
    return [tensors[index].detach().clone() for index in taken]


def _merged(tensors: Parameters, taken: list[int], new: list[Tensor]) -> Parameters:
    replaced = dict(zip(taken, new, strict=True))
    return tuple(replaced.get(index, tensor) for index, tensor in enumerate(tensors))


def _counted(steps: tuple[int, ...], taken: list[int]) -> tuple[int, ...]:
    return tuple(count + (index in taken) for index, count in enumerate(steps))


def clipped(gradients: Gradients, most: float) -> Gradients:
    """Return gradients times min(1, most / (‖g‖ + 1e-6)), to the bits of ``torch.nn.utils.clip_grad_norm_``."""
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients if gradient is not None]
    if not norms:
        return gradients
    # As in torch, on the device: asking whether the norm is too large would wait for it.
    scale = (most / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-6)).clamp(max=1.0)
    return tuple(None if gradient is None else gradient * scale for gradient in gradients)
