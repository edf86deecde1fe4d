"""The head that a cache describes, as a module."""

from itertools import pairwise

import torch
from attrs import frozen
from torch import nn

from fishr.configuration import structure
from fishr.configuration.problems import ConfigurationError
from fishr.configuration.toml import parse_toml
from fishr.data.caches import FeatureCache, GradientCache
from fishr.errors import InputError
from fishr.losses import Loss
from fishr.models.heads import Head, LinearHead, MLPHead


@frozen
class HeadText:
    """A head and its loss as a cache describes them."""

    head: Head
    loss: Loss


def head_of(cache: FeatureCache | GradientCache, plugins: tuple[str, ...] = ()) -> tuple[nn.Module, Loss]:
    """Return the head that a cache describes, in eval mode on the CPU, and its loss."""
    try:
        text, features, outputs = (cache.head[name] for name in ("text", "features", "outputs"))
        tensors = {name: torch.from_numpy(array) for name, array in cache.head["parameters"].items()}
        if not isinstance(text, str) or type(features) is not int:
            raise TypeError("its text or its number of features is none")
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{cache.path}: it describes no head ({error}); make it again") from error
    try:
        described = structure(parse_toml(text), HeadText, plugins)
    except ConfigurationError as error:
        raise ConfigurationError(error.problems, str(cache.path)) from error
    try:
        if isinstance(described.head, LinearHead | MLPHead):
            # Before a module is built, whose size the text alone decides.
            widths = (features, *getattr(described.head, "widths", ()), outputs)
            size = sum((inputs + 1) * more for inputs, more in pairwise(widths))
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
