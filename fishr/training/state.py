"""The whole state of a run between two steps, as one frozen record."""

import warnings
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from fishr.checks import returned
from fishr.data.domains import Domains
from fishr.data.value_checks import check_classes
from fishr.errors import InputError
from fishr.losses import check_labels, outputs_of
from fishr.models.featurizers import Featurizer, published_preprocessing
from fishr.tensor_trees import require_tree, to_device
from fishr.training.compute import GradientScale
from fishr.training.experiment import Experiment
from fishr.training.learning_rates import StepOptimizer
from fishr.training.model import Model
from fishr.training.optimizers import OptimizerState
from fishr.training.owned import owns
from fishr.training.signature import Signature
from fishr.types import HEAD, Layout, Problem, chained

_INITIALIZATION, _BATCHES = 0, 1
_ROUNDING = 0.01  # of a mean or deviation: (pixel - 127) / 128 is as good as a half


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


def build_model(experiment: Experiment, domains: Domains) -> Model:
    """Return the experiment's modules in train mode, on the domains' device.

    The first weights are drawn on the CPU, so that they are the same on every device.

    A warning names the preprocessing of images and that of published weights where they differ.

    Raises:
        InputError: labels that the loss does not take, or activations of other weights below the featurizer's layers.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> experiment = colored_digits()
        >>> build_model(experiment, experiment.data(experiment.seed, None)).head
        Linear(in_features=390, out_features=1, bias=True)
    """
    loss, outputs = experiment.loss, outputs_of(experiment.loss, domains.classes, domains.label_columns)
    for domain in (*domains.training, *domains.evaluation):
        try:
            check_labels(loss, domain.labels, outputs)
        except InputError as error:
            raise InputError(f"domain {domain.name!r}: {error}") from None
        if not hasattr(loss, "check_labels") and domain.labels.dtype == torch.int64:
            check_classes(f"domain {domain.name!r}", domain.labels, domains.classes)
        # A domain without a label is refused here, before a run has a folder.
        domain.labeled(loss)
    _check_preprocessing(experiment.featurizer, domains)
    model = build_modules(experiment, domains.shape, outputs, domains.training[0].labels.device)
    _check_below(model.featurizer, domains)
    return model


def build_modules(experiment: Experiment, shape: tuple[int, ...], outputs: int, device: torch.device) -> Model:
    """Return the experiment's modules for inputs [N, *shape] and so many outputs; else as ``build_model``."""
    generator = _generator(experiment.seed, _INITIALIZATION)
    featurizer = returned("featurizer", experiment.featurizer(shape, generator), nn.Module)
    features = experiment.featurizer.features(shape)
    head = returned("head", experiment.head(features, outputs, generator), nn.Module)
    featurizer = featurizer.to(device)
    if experiment.compute.channels_last:
        featurizer = featurizer.to(memory_format=torch.channels_last)
    compiled = torch.compile(featurizer) if experiment.compute.compile else None
    return Model(featurizer, head.to(device), compiled, outputs, features)


def _check_preprocessing(featurizer: Featurizer, domains: Domains) -> None:
    """Warn where published weights were trained with another preprocessing than that of the images."""
    found = Signature.of(domains).preprocessing
    own = None if found is None else published_preprocessing(featurizer)
    if found is None or own is None:
        return
    pairs = zip((*found.mean, *found.std), (*own.mean, *own.std), strict=True)
    if evolve(found, mean=own.mean, std=own.std) != own or any(abs(a - b) > _ROUNDING for a, b in pairs):
        name = getattr(featurizer, "name", type(featurizer).__name__)
        warnings.warn(
            f"preprocessing: the images have {found}, the published weights of {name} were trained with {own}; "
            "give the data that preprocessing, unless you mean to",
            stacklevel=2,
        )


def _check_below(featurizer: nn.Module, domains: Domains) -> None:
    """Refuse activations that were computed with other weights than those below the layers of the featurizer."""
    own = getattr(featurizer, "below_sha256", None)
    for domain in (*domains.training, *domains.evaluation):
        theirs = getattr(domain.inputs, "below_sha256", None)
        if own is not None and theirs is not None and own != theirs:
            raise InputError(
                f"domain {domain.name!r}: its activations are of other weights than those below the featurizer's "
                "layers; cache them again with this network"
            )


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
        generator=_generator(experiment.seed, _BATCHES).get_state(),
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


def _generator(seed: int, stream: int) -> torch.Generator:
    words = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
