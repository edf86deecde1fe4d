"""The featurizer protocol, and the small featurizers: MLP, MNISTCNN and FeatureDropout."""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from attrs import evolve, field, frozen, has
from attrs.validators import deep_iterable, optional
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports]

from fishr.checks import layer_names, number, whole
from fishr.errors import InputError
from fishr.models.initialization import hidden_layers, seeded_by

if TYPE_CHECKING:
    from fishr.data.images.preprocessing import Preprocessing

_WIDTHS = (64, 128, 128, 128)
_STRIDES = (1, 2, 1, 1)
_GROUPS = 8


class Featurizer(Protocol):
    """Frozen settings whose call builds the module from inputs to features.

    Any frozen attrs class with these two methods is a featurizer; it inherits nothing. One that reads weights from a
    file may also have ``without_weights()``, which returns the featurizer of the same network with random weights: a
    trained model is then loaded without that file. One of published weights may have ``published_preprocessing()``,
    which returns the :class:`fishr.data.images.Preprocessing` that they were trained with, or None: a run on images
    with another one gets a warning. A class that wraps another featurizer in its field ``inner`` needs neither.

    A module whose features of a sample depend on the others of its domain has ``mixes_samples = True`` and takes
    ``(inputs, sizes=None)``: training passes the number of samples of each domain, in their order; without them, in
    evaluation and prediction, all inputs are of one domain. It is refused where each sample is to have features of its
    own: on several ranks, in micro-batches, in caches and in analysis.

    Example:
        >>> from attrs import frozen
        >>> @frozen
        ... class MeanColor:
        ...     def __call__(self, shape, generator):
        ...         return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        ...
        ...     def features(self, shape):
        ...         return shape[0]
        >>> own: Featurizer = MeanColor()
        >>> own((3, 8, 8), torch.Generator())(torch.ones(2, 3, 8, 8)).shape, own.features((3, 8, 8))
        (torch.Size([2, 3]), 3)
    """

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from inputs [N, *shape] to features [N, F], on the generator's device."""
        ...

    def features(self, shape: tuple[int, ...]) -> int:
        """Return F, the number of features for inputs [N, *shape]."""
        ...


@frozen
class FunctionFeaturizer:
    """Featurizer of a plain function ``f(shape, generator) -> nn.Module``; F is read off a forward pass of zeros.

    Args:
        function: Returns the module from inputs [N, *shape] to features [N, F].

    Example:
        >>> FunctionFeaturizer(lambda shape, generator: nn.Flatten()).features((3, 8, 8))
        192
    """

    function: Callable[[tuple[int, ...], torch.Generator], nn.Module]

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the function's module."""
        return self.function(shape, generator)

    def features(self, shape: tuple[int, ...]) -> int:
        """Return F, the number of features for inputs [N, *shape]."""
        with torch.no_grad(), seeded_by(torch.Generator()):
            return self.function(shape, torch.Generator()).eval()(torch.zeros(1, *shape)).shape[1]


def without_weights(featurizer: Featurizer) -> Featurizer:
    """Return the featurizer of the same network that reads no file of weights, if it has one."""
    own, inner = getattr(featurizer, "without_weights", None), _inner(featurizer)
    if own is not None:
        return own()
    return featurizer if inner is None else evolve(cast(Any, featurizer), inner=without_weights(inner))


def published_preprocessing(featurizer: Featurizer) -> "Preprocessing | None":
    """Return the preprocessing that a featurizer's published weights were trained with; None where it is not known."""
    own, inner = getattr(featurizer, "published_preprocessing", None), _inner(featurizer)
    if own is not None:
        return own()
    return None if inner is None else published_preprocessing(inner)


def _inner(featurizer: Featurizer) -> Featurizer | None:
    """Return the featurizer that another wraps."""
    return getattr(featurizer, "inner", None) if has(type(featurizer)) else None


def image_channels(network: str, shape: tuple[int, ...]) -> int:
    """Return C of inputs that must be images (C, H, W)."""
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{network}: got inputs of shape {shape}, expected images (channels, height, width); use MLP")
    return shape[0]


@frozen
class MLP:
    """Featurizer that flattens its input and applies Linear and ReLU layers.

    Args:
        widths: Features after each layer; empty for a featurizer that only flattens.

    Raises:
        InputError: A width is below 1.

    Example:
        >>> mlp = MLP(widths=(5, 4))
        >>> featurizer = mlp((2, 8, 8), torch.Generator().manual_seed(0))
        >>> featurizer(torch.zeros(3, 2, 8, 8)).shape, mlp.features((2, 8, 8))
        (torch.Size([3, 4]), 4)

    Source:
        The default is the network of Arjovsky et al., arXiv 1907.02893, section 5.2, without its last layer.
    """

    widths: tuple[int, ...] = field(default=(390, 390), validator=deep_iterable(whole(1)))

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from inputs [N, *shape] to features [N, F], with weights drawn from the generator."""
        return nn.Sequential(nn.Flatten(), *hidden_layers(prod(shape), self.widths, generator))

    def features(self, shape: tuple[int, ...]) -> int:
        """Return F, the number of features for inputs [N, *shape]."""
        return self.widths[-1] if self.widths else prod(shape)


@frozen
class MNISTCNN:
    """Featurizer of four 3x3 convolutions, each with ReLU and group normalization, averaged over the image.

    First weights are torch's default: uniform on ±1/√(inputs of an output).

    Args:
        frozen: Names of layers below the network, as "0", that keep their first weights, see ``freeze_layers``.

    Raises:
        InputError: When called, inputs that are not images, or a name that is no layer.

    Example:
        >>> cnn = MNISTCNN()
        >>> featurizer = cnn((2, 28, 28), torch.Generator().manual_seed(0))
        >>> featurizer(torch.zeros(3, 2, 28, 28)).shape, cnn.features((2, 28, 28))
        (torch.Size([3, 128]), 128)

    Source:
        The network of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021), appendix D.
    """

    frozen: tuple[str, ...] | None = field(default=None, validator=optional(layer_names))

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from images [N, C, H, W] to features [N, 128], with weights drawn from the generator."""
        channels = image_channels("MNISTCNN", shape)
        layers: list[nn.Module] = []
        with seeded_by(generator):
            for before, after, stride in zip((channels, *_WIDTHS), _WIDTHS, _STRIDES, strict=False):
                layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.ReLU(), nn.GroupNorm(_GROUPS, after)]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        if self.frozen:
            # Here, because most networks freeze nothing.
            from fishr.models.frozen import freeze_layers

            network = freeze_layers(network, self.frozen)
        return network.to(generator.device)

    def features(self, shape: tuple[int, ...]) -> int:
        """Return 128, for images of any size."""
        return _WIDTHS[-1]


@frozen
class FeatureDropout:
    """Featurizer for inputs that are features already: it flattens them and applies dropout.

    Args:
        rate: Dropout rate while training; evaluation drops nothing. On a CPU it is rounded to a multiple of 2⁻¹⁶.

    Raises:
        InputError: The rate is outside 0 to 1.

    Example:
        >>> featurizer = FeatureDropout(rate=0.5)((4,), torch.Generator())
        >>> sorted(set(featurizer(torch.ones(100, 4)).flatten().tolist())), FeatureDropout().features((4,))
        ([0.0, 2.0], 4)
    """

    rate: float = field(default=0.0, validator=number(below=1.0))

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from inputs [N, *shape] to features [N, F]; it has no weights."""
        return nn.Sequential(nn.Flatten(), *([_Dropout(self.rate)] if self.rate else []))

    def features(self, shape: tuple[int, ...]) -> int:
        """Return F, the number of features for inputs [N, *shape]."""
        return prod(shape)


class _Dropout(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        eager = input.device.type in ("cpu", "cuda") and not torch.compiler.is_compiling()
        # torch 2.11 has no rule under vmap for a view in another type.
        eager = eager and not is_functorch_wrapped_tensor(input)
        if not self.training or not eager or not input.is_floating_point():
            return super().forward(input)
        return input * dropout_factors(input.unsqueeze(0), [self.p], [None])[0]


def dropout_factors(like: Tensor, rates: Sequence[float], generators: Iterable[torch.Generator | None]) -> Tensor:
    """Return 0 for what dropout drops of a tensor [H, ...], with a rate and draws for each of H, else 1/(1 − rate)."""
    # 16 bits for each element instead of torch's 64 take a fifth of the time.
    wide = torch.promote_types(like.dtype, torch.float32)
    dropped = [min(round(rate * 2**16), 2**16 - 1) for rate in rates]
    size = like[0].numel()
    words = like.new_empty((len(like), (size + 3) // 4), dtype=torch.int64)
    for own, generator in zip(words, generators, strict=True):
        own.random_(-(2**63), None, generator=generator)
    bits = words.view(torch.int16)[:, :size].view(like.shape)
    last, kept = [count - 2**15 - 1 for count in dropped], [2**16 / (2**16 - count) for count in dropped]
    # 1 above the last that is dropped; clamped, because comparisons are slower.
    return bits.to(wide).sub_(_column(last, like, wide)).clamp_(0, 1).mul_(_column(kept, like, wide)).to(like.dtype)


def _column(numbers: Sequence[float], like: Tensor, dtype: torch.dtype) -> Any:
    """Return a number for each part of a tensor [H, ...]; for one, the number itself."""
    if len(numbers) == 1:
        return numbers[0]
    return torch.tensor(numbers, dtype=dtype, device=like.device).view(-1, *[1] * (like.ndim - 1))
