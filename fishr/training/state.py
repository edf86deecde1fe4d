"""The whole state of a run between two steps, as one frozen record."""

from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from fishr.data.domains import Domains
from fishr.errors import InputError
from fishr.losses import outputs_of
from fishr.training.compute import GradientScale
from fishr.training.experiment import Experiment
from fishr.training.model import Model
from fishr.training.optimizers import OptimizerState
from fishr.training.tensor_trees import require_tree, to_device
from fishr.types import HEAD, Layout, Problem, chained

_INITIALIZATION, _BATCHES = 0, 1


@frozen(eq=False)
class TrainingState:
    """Everything the next steps depend on; no step changes the state it is given.

    Args:
        step: updates made so far.
        parameters: by name, "featurizer.…" and "head.…".
        buffers: by name, as the parameters.
        optimizer: of the parameters that require grad, in their order.
        penalty: the objective's state.
        generator: uint8, on the CPU; state of the generator that batches and random layers draw from.
        scale: of the featurizer's gradient, with 16-bit floats; else None.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> experiment = colored_digits()
        >>> state = initial_state(experiment, experiment.data(experiment.seed, None))
        >>> state.step, state.parameters["head.weight"].shape
        (0, torch.Size([1, 390]))
    """

    step: int
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    optimizer: Any
    penalty: Any
    generator: Tensor
    scale: GradientScale | None = None


def build_model(experiment: Experiment, domains: Domains) -> Model:
    """The experiment's modules with their first weights, on the domains' device.

    The weights are drawn on the CPU, so that they are the same on every device.

    Args:
        experiment: which featurizer and head, and the seed.
        domains: for the shape of an input and the number of classes.

    Returns:
        The modules in train mode.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> experiment = colored_digits()
        >>> build_model(experiment, experiment.data(experiment.seed, None)).head
        Linear(in_features=390, out_features=1, bias=True)
    """
    shape, device = domains.shape, domains.training[0].labels.device
    generator = _generator(experiment.seed, _INITIALIZATION)
    featurizer = experiment.featurizer(shape, generator)
    outputs = outputs_of(experiment.loss, domains.classes)
    head = experiment.head(experiment.featurizer.features(shape), outputs, generator)
    compute = experiment.compute
    featurizer = featurizer.to(device)
    if compute.channels_last:
        featurizer = featurizer.to(memory_format=torch.channels_last)
    return Model(featurizer, head.to(device), torch.compile(featurizer) if compute.compile else None)


def initial_state(experiment: Experiment, domains: Domains) -> TrainingState:
    """The state before the first step.

    Args:
        experiment: the run; its seed decides weights and batches through two independent generators.
        domains: its data, on the device of the run.

    Returns:
        Step 0, on the domains' device.

    Raises:
        InputError: nothing in the model can be trained, or a penalty's state is no tree of tensors.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> experiment = colored_digits()
        >>> initial_state(experiment, experiment.data(experiment.seed, None)).optimizer.steps
        (0, 0, 0, 0, 0, 0)
    """
    return first_state(experiment, build_model(experiment, domains), len(domains.training))


def first_state(experiment: Experiment, model: Model, domains: int) -> TrainingState:
    """The state before the first step of a model that is built already; else as ``initial_state``.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> first_state(colored_digits(), Model(torch.nn.Flatten(), torch.nn.Linear(3, 1)), domains=2).step
        0
    """
    parameters = model.parameters()
    trainable = tuple(p.detach() for p in parameters.values() if p.requires_grad)
    if not trainable:
        raise InputError("model: got no parameter that requires grad, expected one in the featurizer or the head")
    penalty = experiment.objective.init(_problem(model, experiment.layers, domains))
    memory = experiment.optimizer.init(trainable)
    require_tree(penalty, "penalty state")
    require_tree(memory, "optimizer state")
    return TrainingState(
        step=0,
        parameters={name: p.detach().clone() for name, p in parameters.items()},
        buffers={name: buffer.detach().clone() for name, buffer in model.buffers().items()},
        optimizer=memory,
        penalty=penalty,
        generator=_generator(experiment.seed, _BATCHES).get_state(),
        scale=GradientScale() if experiment.compute.precision == "fp16" else None,
    )


def state_to(state: TrainingState, device: torch.device) -> TrainingState:
    """The state on a device; the generator's stays on the CPU.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> state = first_state(colored_digits(), Model(torch.nn.Flatten(), torch.nn.Linear(3, 1)), domains=2)
        >>> state_to(state, torch.device("cpu")).parameters["head.bias"].device
        device(type='cpu')
    """
    return evolve(to_device(state, device), generator=state.generator.cpu())


def without_optimizer(state: TrainingState) -> TrainingState:
    """The weights of a state without the optimizer's memory; as a template it fits a checkpoint with or without one.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> state = first_state(colored_digits(), Model(torch.nn.Flatten(), torch.nn.Linear(3, 1)), domains=2)
        >>> without_optimizer(state).optimizer
        OptimizerState(steps=(), moments={})
    """
    return evolve(state, optimizer=OptimizerState((), {}))


def _problem(model: Model, layers: tuple[str, ...], domains: int) -> Problem:
    if layers != HEAD:
        return Problem.of(chained(model.featurizer, model.head), domains, layers)
    if any(p.requires_grad for p in model.head.parameters()):
        return Problem.of(model.head, domains)
    # A frozen head has no gradient statistics; penalties of the losses alone still work.
    parameter = next(iter(model.parameters().values()))
    return Problem(Layout((), ()), domains, device=parameter.device)


def _generator(seed: int, stream: int) -> torch.Generator:
    words = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
