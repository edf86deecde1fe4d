"""The featurizer and head of a run: built for its data, then a workspace that holds the numbers of a state."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from fishr.checks import returned
from fishr.compilation import lazy
from fishr.data.domains import Domains
from fishr.errors import InputError
from fishr.losses import outputs_of
from fishr.models.featurizers import Featurizer, published_preprocessing
from fishr.models.weight_files import misfits
from fishr.seeding import numbered_generator
from fishr.tensor_trees import copies
from fishr.training.experiment import Experiment
from fishr.training.signature import Signature

_INITIALIZATION = 0  # stream of the experiment's seed
_ROUNDING = 0.01  # of a mean or deviation: (pixel - 127) / 128 is as good as a half


@frozen(eq=False, slots=False)
class Model:
    """A featurizer and a head, built once and reused by every step.

    The modules hold no state between steps: ``place`` puts a state's numbers into them. They are built in train mode,
    and each decides on its own mode. No parameter is added or replaced.
    """

    featurizer: nn.Module  # [N, ...] to features [N, F]
    head: nn.Module  # features to logits [N, C]
    compiled: Callable[[Tensor], Tensor] | None = None  # the featurizer for training steps, where it is compiled
    outputs: int = 0  # C of the logits; 0: not known
    features: int = 0  # F; 0: not known

    def both(self) -> nn.ModuleDict:
        """Return featurizer and head as one module; a parameter shared between them counts once."""
        return self._both

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return parameters by name, the featurizer's as "featurizer.…" and the head's as "head.…"."""
        return self._parameters

    def buffers(self) -> dict[str, Tensor]:
        """Return buffers by name, as the parameters; a forward pass may replace them."""
        return dict(self._both.named_buffers())

    @lazy
    def _both(self) -> nn.ModuleDict:
        return nn.ModuleDict({"featurizer": self.featurizer, "head": self.head})

    @lazy
    def _parameters(self) -> dict[str, nn.Parameter]:
        return dict(self._both.named_parameters())


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
    # For its refusals, before a run has a folder.
    domains.labeled(experiment.loss)
    _check_preprocessing(experiment.featurizer, domains)
    outputs = outputs_of(experiment.loss, domains.classes, domains.label_columns)
    model = build_modules(experiment, domains.shape, outputs, domains.training[0].labels.device)
    _check_below(model.featurizer, domains)
    return model


def build_modules(experiment: Experiment, shape: tuple[int, ...], outputs: int, device: torch.device) -> Model:
    """Return the experiment's modules for inputs [N, *shape] and so many outputs; else as ``build_model``."""
    generator = numbered_generator(experiment.seed, _INITIALIZATION)
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


def place(model: Model, parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
    """Point the modules' parameters at given tensors by name, and set their buffers to copies.

    Forward passes write into buffers only, so that no given tensor changes.

    Raises:
        InputError: the names or shapes are not the model's.

    Example:
        >>> import torch
        >>> model, weight = Model(nn.Flatten(), nn.Linear(2, 1, bias=False)), torch.ones(1, 2)
        >>> place(model, {"head.weight": weight}, {})
        >>> model.head(torch.ones(1, 2)), model.head.weight.data_ptr() == weight.data_ptr()
        (tensor([[2.]], grad_fn=<MmBackward0>), True)
    """
    own_parameters, own_buffers = model.parameters(), model.buffers()
    _check_fit(own_parameters, parameters, "parameter")
    _check_fit(own_buffers, buffers, "buffer")
    for name, parameter in own_parameters.items():
        parameter.data = parameters[name]
    for buffer, copied in zip(own_buffers.values(), copies(buffers[name] for name in own_buffers), strict=True):
        buffer.data = copied


@contextmanager
def evaluating(model: Model) -> Generator[None]:
    """Put the modules in eval mode within the context; restore the mode of each afterwards."""
    modes = [(module, module.training) for part in (model.featurizer, model.head) for module in part.modules()]
    try:
        model.featurizer.eval()
        model.head.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def _check_fit(own: "dict[str, nn.Parameter] | dict[str, Tensor]", given: dict[str, Tensor], kind: str) -> None:
    for name, got, expected in misfits(own, given):
        raise InputError(
            f"{kind} {name}: got shape {got} in the state, expected {expected} as in the model; "
            "use the state with the experiment that made it"
        )
