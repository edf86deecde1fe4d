"""Parameters that a penalty or risk keeps in its state and trains itself, such as those of a discriminator."""

from collections.abc import Callable
from typing import Any, cast

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torch.func import functional_call

from fishr.compilation import traceable
from fishr.errors import InputError
from fishr.models.initialization import seeded_by
from fishr.observation import Observation
from fishr.ranks import mean_over_ranks
from fishr.seeding import seeded
from fishr.tensor_trees import parts
from fishr.training.optimizers import Optimizer, lr_of, updated
from fishr.types import Problem


@traceable
@frozen(eq=False)
class Owned:
    """The state of a module that a penalty trains itself: its parameters, its buffers, and its optimizer's state.

    A step takes ``leaves()``, computes with them by ``torch.func.functional_call`` on a module of the same structure,
    and returns ``trained(...)`` as the next state; a step that does not train the module returns the state as it is.
    Gradients are exact on several ranks where the value is the same on all of them, as what is computed from an
    observation is; random layers would need the draws of ``seen.generator``.

    A risk with a state whose value has no graph leaves the network as it is in this step: its weights and its
    optimizer's state do not change, whatever the other terms of the loss are.

    Example:
        >>> from fishr.training.sgd import SGD
        >>> problem = Problem.of(nn.Linear(3, 2), domains=2, seed=1)
        >>> build, optimizer = lambda: nn.Linear(3, 1), SGD(lr=0.5)
        >>> state = Owned.of(build, optimizer, problem, "critic")
        >>> leaves = state.leaves()
        >>> value = functional_call(build(), leaves, (torch.ones(4, 3),)).mean()
        >>> after = state.trained(value, leaves, optimizer)
        >>> state.parameters["bias"] - after.parameters["bias"]
        tensor([0.5000])
    """

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    memory: Any  # the optimizer's state

    @classmethod
    def of(cls, build: Callable[[], nn.Module], optimizer: Optimizer, problem: Problem, name: str) -> "Owned":
        """Return the first state of a module, in the problem's type and on its device.

        Args:
            build: Builds the module by torch's global generator, which is seeded by ``problem.seed`` and the name, so
                that the first weights are the same on all ranks and devices.
            optimizer: That of ``trained``.
            name: Of the module; two modules of one build have other weights by another name.
        """
        with seeded_by(problem.generator(name)):
            module = build()
        module = module.to(problem.device, problem.dtype)
        parameters = {key: p.detach() for key, p in module.named_parameters()}
        buffers = {key: buffer.detach() for key, buffer in module.named_buffers()}
        return cls(parameters, buffers, optimizer.init(tuple(parameters.values())))

    def leaves(self) -> dict[str, Tensor]:
        """Return the parameters as leaves of a new graph, and copies of the buffers, which a forward pass may move."""
        own = {name: p.detach().requires_grad_() for name, p in self.parameters.items()}
        return own | {name: buffer.clone() for name, buffer in self.buffers.items()}

    def trained(
        self, value: Tensor, leaves: dict[str, Tensor], optimizer: Optimizer, seen: Observation | None = None
    ) -> "Owned":
        """Return the state after one update that lowers a value; parameters that it does not depend on stay.

        Without gradients, as in a term of weight 0, buffers alone change.

        Args:
            value: 0-dim, the same on all ranks; its graph is kept for other terms.
            leaves: What the value was computed by.
            optimizer: That of ``of``; its learning rate may differ from step to step.
            seen: The observation of the step, for the processes that share the batch and for the factor of the
                learning rate by the run's ``lr_schedule``; None: one process, and the optimizer's own rate.

        Raises:
            InputError: The value has no graph, or the factor is not 1 and the optimizer has no field ``lr``.
        """
        parameters, memory = self.parameters, self.memory
        if torch.is_grad_enabled():
            if not value.requires_grad:
                raise InputError("trained: got a value without a graph, expected one that is computed by the leaves")
            wanted = [leaves[name] for name in parameters]
            found = torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)
            factor = 1.0
            if seen is not None:
                found, factor = mean_over_ranks(found, seen.ranks), seen.lr_factor
            before = tuple(parameters.values())
            if factor != 1 and (rate := lr_of(optimizer, "lr_schedule") * factor):
                optimizer = evolve(cast(Any, optimizer), lr=rate)
            after, memory = updated(optimizer, found, memory, before)
            # At a rate of 0 the optimizer's state goes on as at any other.
            parameters = dict(zip(parameters, after if factor else before, strict=True))
        return Owned(parameters, {name: leaves[name].detach() for name in self.buffers}, memory)


def applied(
    module: nn.Module,
    leaves: dict[str, Tensor],
    inputs: Tensor | tuple[Tensor, ...],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return a module's output with given parameters and buffers; its random layers draw from the generator."""
    if generator is None:
        return functional_call(module, leaves, inputs)
    device = (inputs if isinstance(inputs, Tensor) else inputs[0]).device
    # Of one seed on all ranks, which all see the same samples.
    with seeded(int(torch.randint(2**63 - 1, (), generator=generator)), device):
        return functional_call(module, leaves, inputs)


def template(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a module without values, for ``applied``."""
    with torch.device("meta"):
        return build()


def owns(state: Any) -> bool:
    """Return whether a state has parameters that its penalty trains."""
    return any(isinstance(part, Owned) for _, part, _ in parts(state))
