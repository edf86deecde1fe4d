"""Optimizers as pure functions: ``init(parameters)`` and ``update(gradients, state, parameters)``.

Those of the library have the arithmetic of ``torch.optim``, to the bit, in calls for all parameters together that write
new tensors; or with ``fused`` torch's kernels on copies.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adam import adam

from fishr.checks import number
from fishr.errors import InputError
from fishr.tensor_trees import copies, each, require_tree

Parameters = tuple[Tensor, ...]
Gradients = tuple[Tensor | None, ...]
LARGEST = 3.4e38  # of the numbers in float32
Moments = dict[str, list[Tensor]]
Moved = tuple[list[Tensor], Moments]
# From weights, gradients, moments and counts of earlier updates to new weights and moments.
Step = Callable[[list[Tensor], list[Tensor], Moments, list[int]], Moved]


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


def _betas(record: Any, attribute: object, value: tuple[float, float]) -> None:
    if len(value) != 2 or not all(0 <= beta < 1 for beta in value):
        raise InputError(f"betas: got {value}, expected two numbers of at least 0 and less than 1")
    # The first step is lr / (1 − β₁) times the first moment.
    if record.lr / (1 - value[0]) >= LARGEST:
        raise InputError(f"lr: got {record.lr}, expected less than {LARGEST * (1 - value[0]):.3g} with betas = {value}")


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
        InputError: a number outside its range, or a step of ``lr`` beyond float32.

    Example:
        >>> optimizer, weights = Adam(lr=0.1), (torch.tensor([1.0]),)
        >>> moved, state = optimizer.update((torch.tensor([2.0]),), optimizer.init(weights), weights)
        >>> moved, state.steps
        ((tensor([0.9000]),), (1,))

    Source: Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015.
    """

    lr: float = field(validator=number(below=LARGEST, above=True))
    betas: tuple[float, float] = field(default=(0.9, 0.999), validator=_betas)
    eps: float = field(default=1e-8, validator=number())
    weight_decay: float = field(default=0.0, validator=number(below=LARGEST))
    fused: bool = False

    def init(self, parameters: Parameters) -> OptimizerState:
        """Return zero moments."""
        return _zero_moments(parameters)

    def update(
        self, gradients: Gradients, state: OptimizerState, parameters: Parameters
    ) -> tuple[Parameters, OptimizerState]:
        """Return new weights and the next state; where a gradient is None, weights and moments are unchanged."""
        step = on_copies(self.in_place) if self.fused else partial(_adam, self, False)
        return of_given(step, gradients, state, parameters)

    def in_place(self, weights: list[Tensor], given: list[Tensor], moments: Moments, counts: list[int]) -> None:
        """Change weights and moments by gradients, after so many updates, by torch's fused kernel."""
        _fused_adam(self, False, weights, given, moments, counts)


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
        InputError: a number outside its range, or a step of ``lr`` beyond float32.

    Example:
        >>> optimizer, weights = AdamW(lr=0.1, weight_decay=0.5), (torch.tensor([1.0]),)
        >>> optimizer.update((torch.tensor([2.0]),), optimizer.init(weights), weights)[0]
        (tensor([0.8500]),)

    Source: Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019.
    """

    lr: float = field(validator=number(below=LARGEST, above=True))
    betas: tuple[float, float] = field(default=(0.9, 0.999), validator=_betas)
    eps: float = field(default=1e-8, validator=number())
    weight_decay: float = field(default=1e-2, validator=number(below=LARGEST))
    fused: bool = False

    def init(self, parameters: Parameters) -> OptimizerState:
        """Return zero moments."""
        return _zero_moments(parameters)

    def update(
        self, gradients: Gradients, state: OptimizerState, parameters: Parameters
    ) -> tuple[Parameters, OptimizerState]:
        """Return new weights and the next state, as ``Adam.update``."""
        step = on_copies(self.in_place) if self.fused else partial(_adam, self, True)
        return of_given(step, gradients, state, parameters)

    def in_place(self, weights: list[Tensor], given: list[Tensor], moments: Moments, counts: list[int]) -> None:
        """Change weights and moments by gradients, after so many updates, by torch's fused kernel."""
        _fused_adam(self, True, weights, given, moments, counts)


def _zero_moments(parameters: Parameters) -> OptimizerState:
    zeros = tuple(torch.zeros_like(p) for p in parameters)
    return OptimizerState((0,) * len(parameters), {"first": zeros, "second": zeros})


def _adam(
    optimizer: Adam | AdamW,
    decoupled: bool,
    weights: list[Tensor],
    given: list[Tensor],
    moments: Moments,
    counts: list[int],
) -> Moved:
    (one, two), lr, decay = optimizer.betas, optimizer.lr, optimizer.weight_decay
    if decay and decoupled:
        weights = each._foreach_mul(weights, 1 - lr * decay)
    elif decay:
        given = each._foreach_add(given, weights, alpha=decay)
    first = each._foreach_lerp(moments["first"], given, 1 - one)
    second = each._foreach_mul(moments["second"], two)
    each._foreach_addcmul_(second, given, given, 1 - two)
    # One buffer: √v, √v̂, √v̂ + eps.
    root = each._foreach_sqrt(second)
    each._foreach_div_(root, [(1 - two ** (count + 1)) ** 0.5 for count in counts])
    each._foreach_add_(root, optimizer.eps)
    steps = [-(lr / (1 - one ** (count + 1))) for count in counts]
    return each._foreach_addcdiv(weights, first, root, steps), {"first": first, "second": second}


def _fused_adam(
    optimizer: Adam | AdamW,
    decoupled: bool,
    weights: list[Tensor],
    given: list[Tensor],
    moments: Moments,
    counts: list[int],
) -> None:
    # The kernel reads the counts where the weights are. Equal ones are filled in, because a copy makes a GPU wait.
    where = weights[0].device if weights else None
    same = len(set(counts)) == 1
    steps = torch.full((len(counts),), float(counts[0]), device=where) if same else torch.tensor(counts, device=where)
    adam(
        weights,
        given,
        moments["first"],
        moments["second"],
        [],
        [*steps.float().unbind()],
        amsgrad=False,
        beta1=optimizer.betas[0],
        beta2=optimizer.betas[1],
        lr=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        eps=optimizer.eps,
        maximize=False,
        fused=True,
        decoupled_weight_decay=decoupled,
    )


def on_copies(kernel: Callable[[list[Tensor], list[Tensor], Moments, list[int]], None]) -> Step:
    """Return the step of a kernel that changes weights and moments in place."""

    def step(weights: list[Tensor], given: list[Tensor], moments: Moments, counts: list[int]) -> Moved:
        weights, moments = copies(weights), {name: copies(moment) for name, moment in moments.items()}
        kernel(weights, given, moments, counts)
        return weights, moments

    return step


@torch.no_grad()
def of_given(
    step: Step, gradients: Gradients, state: OptimizerState, parameters: Parameters
) -> tuple[Parameters, OptimizerState]:
    """Apply a step to the weights and moments that have a gradient."""
    taken = [index for index, gradient in enumerate(gradients) if gradient is not None]
    if not taken:
        return parameters, state

    def of(tensors: Parameters) -> list[Tensor]:
        return [tensors[index] for index in taken]

    def merged(tensors: Parameters, new: list[Tensor]) -> Parameters:
        replaced = dict(zip(taken, new, strict=True))
        return tuple(replaced.get(index, tensor) for index, tensor in enumerate(tensors))

    moments = {name: of(tensors) for name, tensors in state.moments.items()}
    given = [gradient for gradient in gradients if gradient is not None]
    weights, new = step(of(parameters), given, moments, [state.steps[index] for index in taken])
    counts = tuple(count + (gradient is not None) for count, gradient in zip(state.steps, gradients, strict=True))
    after = {name: merged(tensors, new[name]) for name, tensors in state.moments.items()}
    return merged(parameters, weights), OptimizerState(counts, after)


def clipped(gradients: Gradients, most: float) -> Gradients:
    """Return gradients times min(1, most / (‖g‖ + 1e-6)), to the bits of ``torch.nn.utils.clip_grad_norm_``."""
    given = [gradient for gradient in gradients if gradient is not None]
    if not given:
        return gradients
    norm = get_total_norm(given)
    # As in torch, on the device: asking whether the norm is too large would wait for it.
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    limited = iter(each._foreach_mul(given, scale))
    return tuple(None if gradient is None else next(limited) for gradient in gradients)
