"""The signature of a run whose checkpoint has none, from its configuration and the shapes of its weights."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from fishr.data.images.image_data import ImageFolders, ImageList
from fishr.data.images.preprocessing import Preprocessing
from fishr.errors import InputError
from fishr.losses import outputs_of
from fishr.models.weight_files import misfits
from fishr.training.experiment import Experiment
from fishr.training.model import build_modules
from fishr.training.signature import Signature
from fishr.training.state import TrainingState

# Sides of images that a network of any or of one size may take, pixels; the first that fits is taken.
_SIDES = (224, 32, 28, 8)


def derived(experiment: Experiment, state: TrainingState, path: Path) -> Signature:
    """Return a signature whose modules have the shapes of the state's weights; names of classes are not known."""
    source = getattr(experiment.data, "source", experiment.data)
    preprocessing = Preprocessing(source.size) if isinstance(source, ImageFolders | ImageList) else None
    for shape in _shapes(state.parameters, preprocessing):
        for classes in _classes(experiment, state.parameters):
            signature = Signature(shape, classes, preprocessing=preprocessing)
            if _fits(experiment, signature, state):
                return signature
    raise InputError(
        f"{path}: made by a version that kept neither the shape of the inputs nor the classes, and the shapes of its "
        "weights do not tell them; train again"
    )


def _shapes(parameters: dict[str, Tensor], preprocessing: Preprocessing | None) -> Iterator[tuple[int, ...]]:
    if preprocessing is not None:
        yield 3, preprocessing.size, preprocessing.size
        return
    names = sorted(parameters, key=lambda name: name.startswith("head."))
    first = next((parameters[name] for name in names if parameters[name].ndim > 1), None)
    if first is not None and first.ndim == 2:
        yield (first.shape[1],)
    elif first is not None:
        yield from ((first.shape[1], *[side] * (first.ndim - 2)) for side in _SIDES)


def _classes(experiment: Experiment, parameters: dict[str, Tensor]) -> Iterator[int]:
    """Yield numbers of classes for which the loss takes as many outputs as the head has."""
    outputs = next((parameters[name].shape[:1] for name in reversed(parameters) if name.startswith("head.")), ())
    for classes in chain(outputs, (2,)):
        try:
            if (outputs_of(experiment.loss, classes),) == tuple(outputs):
                yield classes
        except InputError:
            continue


def _fits(experiment: Experiment, signature: Signature, state: TrainingState) -> bool:
    try:
        model = build_modules(experiment, signature.shape, signature.outputs(experiment.loss), torch.device("cpu"))
    except Exception:  # a plugin's featurizer raises its own errors on a shape that it does not take
        return False
    pairs = ((model.parameters(), state.parameters), (model.buffers(), state.buffers))
    return not any(True for own, given in pairs for _ in misfits(own, given))
