"""Modules that do not learn: features by blocks of rows, the frozen featurizer, frozen layers and normalization."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.mixed_samples import refuse_mixed_samples

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
        refuse_mixed_samples(inner, "frozen", "train it")
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


def freeze_layers(module: Module, layers: Iterable[str]) -> Module:
    """Freeze layers of a module in place: their parameters do not require grad, their batch normalization is frozen.

    Dropout still acts in them.

    Args:
        module: Any module.
        layers: Names of modules or parameters below it; a name stands for everything below it, "layer1" for
            "layer1.0.conv1.weight" too.

    Raises:
        InputError: A name that no parameter has or begins with.

    Example:
        >>> network = nn.Sequential()
        >>> network.stem, network.head = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2)
        >>> network = freeze_layers(network, ["stem"]).train()
        >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        ['head.weight', 'head.bias']
        >>> network.stem[1].training
        False
        >>> freeze_layers(network, ["stam"])
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: frozen: got 'stam', which is no layer with parameters; did you mean stem?
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for layer in layers:
        inside = [parameter for name, parameter in parameters.items() if _is_below(name, layer)]
        if not inside:
            raise InputError(f"frozen: got {layer!r}, which is no layer with parameters; {_near(layer, parameters)}")
        for parameter in inside:
            parameter.requires_grad_(False)
        for name, part in module.named_modules():
            if _is_below(name, layer):
                freeze_norm(part)
    return module


def _is_below(name: str, layer: str) -> bool:
    return f"{name}.".startswith(f"{layer}.")


def _near(layer: str, parameters: Iterable[str]) -> str:
    parts = [list(accumulate(name.split("."), "{}.{}".format)) for name in parameters]
    near = get_close_matches(layer, dict.fromkeys(name for prefixes in parts for name in prefixes), 1)
    if near:
        return f"did you mean {near[0]}?"
    return f"expected a name below {', '.join(dict.fromkeys(prefixes[0] for prefixes in parts))}"


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
