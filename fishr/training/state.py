"""The whole state of a run between two steps, as one frozen record."""

from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from fishr.data.domains import Domains
from fishr.errors import InputError
from fishr.seeding import numbered_generator
from fishr.tensor_trees import require_tree, to_device
from fishr.training.compute import GradientScale
from fishr.training.experiment import Experiment
from fishr.training.learning_rates import StepOptimizer
from fishr.training.model import Model, build_model
from fishr.training.optimizers import OptimizerState
from fishr.training.owned import owns
from fishr.types import HEAD, Layout, Problem, chained

_BATCHES = 1  # stream of the experiment's seed


@frozen(eq=False)
class TrainingState:
    """Everything the next steps depend on; no step changes the state it is given."""

    step: int  # updates made so far
    parameters: dict[str, Tensor]  # by name, "featurizer.…" and "head.…"
    buffers: dict[str, Tensor]  # likewise
    optimizer: Any  # the optimizer's state, of the parameters that require grad; by layer with ``lr_factors``
    penalty: Any  # the objective's state
    generator: Tensor  # state of the generator of batches and random layers; uint8, on the CPU
    scale: GradientScale | None = None  # of the featurizer's backward pass with fp16
    descent: Any = None  # the state of the descent, where there is one
    average: Any = None  # the state of the average of the weights, where there is one


def initial_state(experiment: Experiment, domains: Domains) -> TrainingState:
    """Return the state before the first step, on the domains' device.

    The experiment's seed decides weights and batches through two independent generators.

    Raises:
        InputError: labels that the loss does not take, nothing in the model can be trained, or a penalty's state is no
            tree of tensors.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> experiment = colored_digits()
        >>> initial_state(experiment, experiment.data(experiment.seed, None)).optimizer.steps
        (0, 0, 0, 0, 0, 0)
    """
    return first_state(experiment, build_model(experiment, domains), len(domains.training))


def first_state(experiment: Experiment, model: Model, domains: int) -> TrainingState:
    """Return the state before the first step of a model that is built already; else as ``initial_state``."""
    parameters = model.parameters()
    trainable = {name: p.detach() for name, p in parameters.items() if p.requires_grad}
    if not trainable:
        raise InputError("model: got no parameter that requires grad, expected one in the featurizer or the head")
    penalty = experiment.objective.init(_problem(model, experiment, domains))
    memory = StepOptimizer(experiment, 0).init(trainable)
    require_tree(penalty, "penalty state")
    require_tree(memory, "optimizer state")
    if getattr(experiment.descent, "by_domain", False) and owns(penalty):
        raise InputError(
            f"descent: got {type(experiment.descent).__name__}, which measures each domain alone, with a risk or "
            "penalty that trains parameters of its own once a step; leave out one of the two"
        )
    first = {name: p.detach().clone() for name, p in parameters.items()}
    buffers = {name: buffer.detach().clone() for name, buffer in model.buffers().items()}
    descent = experiment.descent and experiment.descent.init({name: first[name] for name in trainable})
    require_tree(descent, "descent state")
    average = experiment.average and experiment.average.init(moving_weights(model, first, buffers))
    require_tree(average, "average state")
    return TrainingState(
        step=0,
        parameters=first,
        buffers=buffers,
        optimizer=memory,
        penalty=penalty,
        generator=numbered_generator(experiment.seed, _BATCHES).get_state(),
        scale=GradientScale() if experiment.compute.precision == "fp16" else None,
        descent=descent,
        average=average,
    )


def moving_weights(model: Model, parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what an average is of: the parameters that are trained, and the buffers of floating point."""
    trained = {name: parameters[name] for name, p in model.parameters().items() if p.requires_grad}
    return trained | {name: buffer for name, buffer in buffers.items() if buffer.is_floating_point()}


def state_to(state: TrainingState, device: torch.device) -> TrainingState:
    """Return the state on a device; the generator's stays on the CPU."""
    return evolve(to_device(state, device), generator=state.generator.cpu())


def without_optimizer(state: TrainingState) -> TrainingState:
    """Return the state without the optimizer's, the descent's and the average's."""
    return evolve(state, optimizer=OptimizerState((), {}), descent=None, average=None)


def with_weights(state: TrainingState, weights: dict[str, Tensor]) -> TrainingState:
    """Return the state with other parameters and buffers of some names, and without the average's state."""
    parameters = {name: weights.get(name, value) for name, value in state.parameters.items()}
    buffers = {name: weights.get(name, value) for name, value in state.buffers.items()}
    return evolve(state, parameters=parameters, buffers=buffers, average=None)


def _problem(model: Model, experiment: Experiment, domains: int) -> Problem:
    if experiment.layers != HEAD:
        problem = Problem.of(chained(model.featurizer, model.head), domains, experiment.layers)
    elif any(p.requires_grad for p in model.head.parameters()):
        problem = Problem.of(model.head, domains)
    else:
        # A frozen head has no gradient statistics; penalties of the losses alone still work.
        problem = Problem(Layout((), ()), domains, device=next(iter(model.parameters().values())).device)
    features, outputs = model.features or problem.features, model.outputs or problem.outputs
    return evolve(problem, features=features, outputs=outputs, seed=experiment.seed)
