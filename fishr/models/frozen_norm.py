"""Batch normalization by the statistics it came with, which training leaves as they are."""

from functools import cache
from typing import Any, TypeVar

from torch import nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Module = TypeVar("Module", bound=nn.Module)


def freeze_norm(module: Module) -> Module:
    """Keep every batch normalization of a module in eval mode for good; scale and shift still train.

    Nothing takes it out of eval mode: neither ``train()`` nor code that sets each module's ``training``. Names of
    parameters and buffers stay the same. Other normalizations keep no statistics, so there is nothing to freeze.

    Args:
        module: changed in place.

    Returns:
        The same module.

    Example:
        >>> import torch
        >>> network = freeze_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))).train()
        >>> _ = network(torch.randn(2, 3, 5, 5))
        >>> network[1].training, network[1].running_mean, network[1].weight.requires_grad
        (False, tensor([0., 0., 0., 0.]), True)
    """
    for part in module.modules():
        if isinstance(part, _NORMS) and not isinstance(part, _EvalOnly):
            part.__class__ = _eval_only(type(part))
    return module


class _EvalOnly:
    """Goes before a module's class: training mode is off, whatever it is set to."""

    @property
    def training(self) -> bool:
        return False

    @training.setter
    def training(self, mode: bool) -> None:
        pass

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles name the class that can be imported, and make this one of it again.
        return _empty, (type(self).__bases__[1],), vars(self)


@cache
def _eval_only(cls: type[Any]) -> type[Any]:
    return type(f"Frozen{cls.__name__}", (_EvalOnly, cls), {})


def _empty(cls: type[Any]) -> Any:
    return object.__new__(_eval_only(cls))
