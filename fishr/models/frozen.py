"""Modules that do not learn: features by blocks of rows, the frozen featurizer, frozen batch normalization."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

BLOCK = 64
_COPIES = 16
_TRIALS = 5


def features_by_block(featurizer: Callable[[Tensor], Tensor], inputs: Tensor, block: int | None = None) -> Tensor:
    """Return features [N, F] without a graph; a sample's features are bit-identical in any batch.

    Matrix products of different sizes round differently, so every pass has exactly 64 rows; the last pass repeats its
    last row. Some products also round by a row's place in memory (layers with few outputs whose inputs are no multiple
    of 4). Passes over copies of random rows detect this, and then rows are computed one by one.

    Args:
        featurizer: In eval mode, so that a row's features depend on no other row.
        inputs: [N, ...], at least one row.
        block: Rows of a pass, for repeated calls; None: determined here.

    Example:
        >>> featurizer, inputs = nn.Linear(8, 16), torch.randn(100, 8)
        >>> features = features_by_block(featurizer, inputs)
        >>> torch.equal(features_by_block(featurizer, inputs[90:93]), features[90:93])
        True
    """
    with torch.no_grad():
        return in_blocks(featurizer, inputs, block or block_of(featurizer, inputs))


def in_blocks(module: Callable[[Tensor], Tensor], inputs: Tensor, block: int = BLOCK) -> Tensor:
    """Apply a row-wise module in passes of exactly ``block`` rows; the last pass repeats its last row."""
    parts: list[Tensor] = []
    for rows in inputs.split(block):
        # A copy, because a view may start anywhere in memory.
        full = torch.empty((block, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
        full[: len(rows)] = rows
        full[len(rows) :] = rows[-1:]
        parts.append(module(full)[: len(rows)])
    return torch.cat(parts)


class FrozenFeaturizer(nn.Module):
    """A featurizer with constant weights: no parameter requires grad, and it stays in eval mode.

    A sample's features are bit-identical in any batch.

    Args:
        inner: Module from inputs [N, ...] to features [N, F]; frozen in place.

    Example:
        >>> frozen = FrozenFeaturizer(nn.Sequential(nn.Linear(8, 16), nn.Dropout()))
        >>> features = frozen.train()(torch.ones(2, 8))
        >>> features.requires_grad, torch.equal(features[0], features[1]), frozen.training, frozen.inner.training
        (False, True, True, False)
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.eval().requires_grad_(False)
        self._blocks: dict[tuple[object, ...], int] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        """Return features [N, F] without a graph."""
        device = inputs.device
        autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        key = (device, inputs.dtype, tuple(inputs.shape[1:]), autocast)
        with torch.no_grad():
            if key not in self._blocks:
                self._blocks[key] = block_of(self.inner, inputs)
            return in_blocks(self.inner, inputs, self._blocks[key])

    def train(self, mode: bool = True) -> "FrozenFeaturizer":
        """Set the module's own mode; the inner module stays in eval mode."""
        self.training = mode
        return self


def block_of(featurizer: Callable[[Tensor], Tensor], inputs: Tensor) -> int:
    """Return how many rows may share a pass: 64 if a row's bits do not depend on its place among them, else 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        # Four random rows detect it in 19 of 20 such networks, so several fours are tried.
        for _ in range(_TRIALS):
            rows = torch.randn((BLOCK // _COPIES, *inputs.shape[1:]), generator=generator)
            copies = rows.to(inputs.device, inputs.dtype).repeat_interleave(_COPIES, 0)
            features = featurizer(copies).unflatten(0, (-1, _COPIES))
            if not torch.equal(features, features[:, :1].expand_as(features)):
                return 1
    return BLOCK


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Module = TypeVar("Module", bound=nn.Module)


def freeze_norm(module: Module) -> Module:
    """Keep every batch normalization of a module in eval mode permanently; scale and shift still train.

    Neither ``train()`` nor code that sets ``training`` of each module changes it. Names of parameters and buffers stay
    the same. Other normalizations keep no statistics.

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
    """Mixin before a module's class: training mode is off, whatever it is set to."""

    @property
    def training(self) -> bool:
        return False

    @training.setter
    def training(self, mode: bool) -> None:
        pass

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles name the importable class, and derive this one from it again.
        return _empty, (type(self).__bases__[1],), vars(self)


@cache
def _eval_only(cls: type[Any]) -> type[Any]:
    return type(f"Frozen{cls.__name__}", (_EvalOnly, cls), {})


def _empty(cls: type[Any]) -> Any:
    return object.__new__(_eval_only(cls))
