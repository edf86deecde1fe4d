"""Optimizers as pure functions: ``init(parameters)`` and ``update(gradients, state, parameters)``.

They are torch's own functional Adam, AdamW and SGD on copies, so that the results have the bits of ``torch.optim`` and
the arguments do not change.
"""

import inspect
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from fishr.checks import number
from fishr.errors import InputError
from fishr.tensor_trees import require_tree

Parameters = tuple[Tensor, ...]
Gradients = tuple[Tensor | None, ...]
Moments = dict[str, list[Tensor]]
# Changes weights and moments in place, of gradients and counts of earlier updates.
Step = Callable[[list[Tensor], list[Tensor], Moments, list[int]], None]


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


def lr_of(optimizer: Optimizer, setting: str) -> float:
    """Return the learning rate that a setting changes; refuse an optimizer that has none in its fields."""
    lr: Any = getattr(optimizer, "lr", None)
    if not isinstance(lr, int | float) or "lr" not in inspect.signature(type(optimizer)).parameters:
        raise InputError(
            f"{setting}: got one for {type(optimizer).__name__}, which has no number lr in its fields; "
            "take an optimizer that has, or leave it out"
        )
    return lr


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
        return _zero_moments(parameters)

    def update(
        self, gradients: Gradients, state: OptimizerState, parameters: Parameters
    ) -> tuple[Parameters, OptimizerState]:
        """Return new weights and the next state; where a gradient is None, weights and moments are unchanged."""
        return on_copies(self.in_place, gradients, state, parameters)

    def in_place(self, weights: list[Tensor], given: list[Tensor], moments: Moments, counts: list[int]) -> None:
        """Change weights and moments by gradients, after so many updates."""
        _adam_in_place(self, adam, weights, given, moments, counts)


@frozen
class AdamW:
    """Adam with decoupled weight decay, with torch's arithmetic: w ← w − lr · weight_decay · w, then Adam's step.

    Args:
        lr: learning rate.
        betas: decay of the two moments.
        eps: added to the denominator.
        weight_decay: fraction of the weights, times ``lr``, that each update removes.
        fused: use torch's fused kernel, which is faster on a GPU and rounds differently.

    Raises:
        InputError: a number outside its range.

    Example:
        >>> optimizer, weights = AdamW(lr=0.1, weight_decay=0.5), (torch.tensor([1.0]),)
        >>> optimizer.update((torch.tensor([2.0]),), optimizer.init(weights), weights)[0]
        (tensor([0.8500]),)

    Source: Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019.
    """

    lr: float = field(validator=number(above=True))
    betas: tuple[float, float] = field(default=(0.9, 0.999), validator=_betas)
    eps: float = field(default=1e-8, validator=number())
    weight_decay: float = field(default=1e-2, validator=number())
    fused: bool = False

    def init(self, parameters: Parameters) -> OptimizerState:
        """Return zero moments."""
        return _zero_moments(parameters)

    def update(
        self, gradients: Gradients, state: OptimizerState, parameters: Parameters
    ) -> tuple[Parameters, OptimizerState]:
        """Return new weights and the next state, as ``Adam.update``."""
        return on_copies(self.in_place, gradients, state, parameters)

    def in_place(self, weights: list[Tensor], given: list[Tensor], moments: Moments, counts: list[int]) -> None:
        """Change weights and moments by gradients, after so many updates."""
        _adam_in_place(self, adamw, weights, given, moments, counts)


def _zero_moments(parameters: Parameters) -> OptimizerState:
    zeros = tuple(torch.zeros_like(p) for p in parameters)
    return OptimizerState((0,) * len(parameters), {"first": zeros, "second": zeros})


def _adam_in_place(
    optimizer: Adam | AdamW,
    kernel: Callable[..., None],
    weights: list[Tensor],
    given: list[Tensor],
    moments: Moments,
    counts: list[int],
) -> None:
    # The fused kernel reads the counts where the weights are.
    device = weights[0].device if optimizer.fused and weights else None
    kernel(
        weights,
        given,
        moments["first"],
        moments["second"],
        [],
        [*torch.tensor(counts, dtype=torch.float32, device=device).unbind()],
        amsgrad=False,
        beta1=optimizer.betas[0],
        beta2=optimizer.betas[1],
        lr=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        eps=optimizer.eps,
        maximize=False,
        fused=optimizer.fused or None,
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

    lr: float = field(validator=number(above=True))
    momentum: float = field(default=0.0, validator=number(below=1.0))
    weight_decay: float = field(default=0.0, validator=number())
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
        return on_copies(self.in_place, gradients, state, parameters)

    def in_place(self, weights: list[Tensor], given: list[Tensor], moments: Moments, counts: list[int]) -> None:
        """Change weights and moments by gradients, after so many updates."""
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
            fused=self.fused or None,
        )


@torch.no_grad()
def on_copies(
    step: Step, gradients: Gradients, state: OptimizerState, parameters: Parameters
) -> tuple[Parameters, OptimizerState]:
    """Apply a kernel that works in place to copies of the weights and moments that have a gradient."""
    taken = [index for index, gradient in enumerate(gradients) if gradient is not None]

    def copies(tensors: Parameters) -> list[Tensor]:
        return [tensors[index].detach().clone() for index in taken]

    def merged(tensors: Parameters, new: list[Tensor]) -> Parameters:
        replaced = dict(zip(taken, new, strict=True))
        return tuple(replaced.get(index, tensor) for index, tensor in enumerate(tensors))

    weights, moments = copies(parameters), {name: copies(tensors) for name, tensors in state.moments.items()}
    given = [gradient for gradient in gradients if gradient is not None]
    step(weights, given, moments, [state.steps[index] for index in taken])
    counts = tuple(count + (index in taken) for index, count in enumerate(state.steps))
    after = {name: merged(tensors, moments[name]) for name, tensors in state.moments.items()}
    return merged(parameters, weights), OptimizerState(counts, after)


def clipped(gradients: Gradients, most: float) -> Gradients:
    """Return gradients times min(1, most / (‖g‖ + 1e-6)), to the bits of ``torch.nn.utils.clip_grad_norm_``."""
    norm = get_total_norm([gradient for gradient in gradients if gradient is not None])
    # As in torch, on the device: asking whether the norm is too large would wait for it.
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    return tuple(None if gradient is None else gradient * scale for gradient in gradients)
