"""The head that a cache describes, as a module."""

from itertools import pairwise

import torch
from attrs import frozen
from torch import nn

from fishr.configuration import structure
from fishr.configuration.toml import parse_toml
from fishr.data.caches import FeatureCache, GradientCache
from fishr.errors import InputError
from fishr.losses import BinaryCrossEntropy, CrossEntropy, Loss
from fishr.models.heads import LinearHead, MLPHead


@frozen
class HeadText:
    """A head and its loss as a cache describes them.

    Args:
        head: builds the module from features to logits.
        loss: per-sample loss.

    Example:
        >>> HeadText(LinearHead(), CrossEntropy()).head
        LinearHead(init='xavier')
    """

    head: LinearHead | MLPHead
    loss: CrossEntropy | BinaryCrossEntropy


def head_of(cache: FeatureCache | GradientCache) -> tuple[nn.Module, Loss]:
    """The head that a cache describes, in eval mode on the CPU, and its loss.

    Args:
        cache: an open feature or gradient cache.

    Raises:
        InputError: it describes none that is known here, or parameters that are not finite.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fishr.analysis.cache_writing import cache_features, featured_experiment
        >>> from fishr.data.caches import open_features
        >>> from fishr.protocols import colored_digits
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = cache_features(featured_experiment(colored_digits()), Path(folder, "digits.h5"))
        ...     head_of(open_features(Path(folder, "digits.h5")))
        (Linear(in_features=390, out_features=1, bias=True), BinaryCrossEntropy())
    """
    try:
        text, features, outputs = (cache.head[name] for name in ("text", "features", "outputs"))
        tensors = {name: torch.from_numpy(array) for name, array in cache.head["parameters"].items()}
        if not isinstance(text, str) or type(features) is not int:
            raise TypeError("its text or its number of features is none")
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{cache.path}: it describes no head ({error}); make it again") from error
    described = structure(parse_toml(text), HeadText)
    widths = (features, *getattr(described.head, "widths", ()), outputs)
    # Before a module is built, whose size the text alone decides.
    size = sum((inputs + 1) * more for inputs, more in pairwise(widths))
    try:
        if size != sum(tensor.numel() for tensor in tensors.values()):
            raise RuntimeError
        module = described.head(features, outputs, torch.Generator())
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"{cache.path}: the head's parameters are not those of {described.head}; make it again"
        ) from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{cache.path}: the head's parameter {name} has NaN or infinite values; make it again")
    return module.eval(), described.loss
