"""The protocol of descents, and what a step hands to them."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor

from fishr.observation import Observation

Weights = dict[str, Tensor]
# As the call of a risk: its value and its next state.
RiskCall = Callable[[Observation, Any, int], tuple[Tensor, Any]]


@frozen(eq=False)
class Measured:
    """The objective on samples of a step's batch at some weights.

    Args:
        loss: 0-dim, without a graph, in the loss's unit.
        gradients: Of ``loss`` by each weight, loss/parameter; None where it does not depend on it.
        buffers: Of the model, after the forward pass.
        penalty: State of the objective, after this evaluation.
        risk: State of a risk that was measured in its place.
        hessian_product: From v to H·v by name, once, with H the Hessian of ``loss`` at these weights; None where it was
            not asked for.
    """

    loss: Tensor
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor]
    penalty: Any
    risk: Any = None
    hessian_product: Callable[[dict[str, Tensor | None]], dict[str, Tensor | None]] | None = None


class Gradients(Protocol):
    """The gradients of a step's objective, to be called at any weights and on any of the batch's domains.

    All calls of a step have the same samples, and draw the same in random layers and penalties. A call measures the
    objective; on some of the domains, without the penalties that compare domains, whose gradients ``compared`` adds.

    Args:
        weights: The parameters that are trained, by name.
        domains: Whose samples; None: all.
        after: A measurement whose buffers and states of penalties this one starts from; None: those of the step's
            beginning.
        risk: A risk, or a function like its call, measured in place of the whole objective, whose states stay.
            Gradients are None where its value has no graph.
        state: Of ``risk``.
        twice: Keep the graph of the gradients, for ``Measured.hessian_product``.

    Raises:
        InputError: ``twice``, where the step runs in micro-batches.
    """

    @property
    def domains(self) -> tuple[int, ...]:
        """The domains that have samples in the batch."""
        ...

    @property
    def buffers(self) -> dict[str, Tensor]:
        """Buffers of the model before the step."""
        ...

    def generator(self, name: str) -> torch.Generator:
        """Return a generator on the CPU for the draws of a descent, as ``Observation.generator``."""
        ...

    def __call__(
        self,
        weights: Weights,
        domains: tuple[int, ...] | None = None,
        after: Measured | None = None,
        risk: RiskCall | None = None,
        state: Any = (),
        twice: bool = False,
    ) -> Measured:
        """Return the objective and its gradients."""
        ...

    def compared(
        self, gradients: dict[str, Tensor | None], weights: Weights, after: Measured
    ) -> tuple[dict[str, Tensor | None], Measured]:
        """Return gradients plus those of the penalties that compare domains, on the whole batch at some weights.

        The measurement that is returned has the buffers of ``after`` and the next states of these penalties. A descent
        by domain calls this for each update, or the step is refused where the objective has such penalties.
        """
        ...


class NamedOptimizer(Protocol):
    """The optimizer of a run at the step's learning rates, with the run's limit on the gradient's norm."""

    def init(self, weights: Weights) -> Any:
        """Return the state before a first update."""
        ...

    def update(self, gradients: dict[str, Tensor | None], memory: Any, weights: Weights) -> tuple[Weights, Any]:
        """Return the weights after an update, and the next state."""
        ...


@frozen(eq=False)
class Descended:
    """The outcome of a descent.

    Args:
        weights: After the step.
        memory: State of the optimizer.
        state: State of the descent.
        measured: The measurement whose buffers and states of penalties the next step starts from.
    """

    weights: Weights
    memory: Any
    state: Any
    measured: Measured


class Descent(Protocol):
    """The update of a step: a function from the weights and the gradients to the next weights.

    The plain step is ``gradients(weights)`` and one update of the optimizer. No argument is changed. The state is a
    tree of tensors, numbers, strings, None, tuples, lists, dicts with string keys and frozen attrs records. A class
    that measures domains one by one has ``by_domain = True``: training refuses it with a risk that compares domains.

    Example:
        >>> from attrs import frozen
        >>> @frozen
        ... class Plain:
        ...     def init(self, weights):
        ...         return ()
        ...     def __call__(self, gradients, optimizer, weights, memory, state):
        ...         measured = gradients(weights)
        ...         moved, memory = optimizer.update(measured.gradients, memory, weights)
        ...         return Descended(moved, memory, state, measured)
        >>> descent: Descent = Plain()
    """

    def init(self, weights: Weights, /) -> Any:
        """Return the state before the first step."""
        ...

    def __call__(
        self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights, memory: Any, state: Any, /
    ) -> Descended:
        """Return the weights and states after a step."""
        ...
