"""One table of heads, losses and domain sizes, and the slow, obvious oracle that fast routes are compared with."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from attrs import frozen
from backpack.custom_module.reduce_tuple import ReduceTuple
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import spectral_norm
from torch.testing import assert_close

from fishr.losses import Loss
from fishr.statistics.distances import distance_to_mean
from fishr.statistics.domain_moments import GradientMoments
from fishr.statistics.moments import Route
from fishr.types import Layout

FLOAT64 = torch.float64
EXACT = {"atol": 1e-10, "rtol": 1e-10}
# A backward pass through the statistics of a layer that reads indices: torch tells of hooks without input gradients.
INDICES = "ignore:Full backward hook is firing:UserWarning"


class MeanOverTokens(nn.Module):
    """[N, T, C] to [N, C]."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


class Twice(nn.Module):
    """A layer that is called twice in a forward pass."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(features)))


class InPlace(nn.Module):
    """Functions that write into the features, and into what a layer returns."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, outputs)

    def forward(self, features: Tensor) -> Tensor:
        features.mul_(2)
        features += 1
        return self.last(nn.functional.leaky_relu_(self.first(features), 0.5))


class Attention(nn.Module):
    """Tokens that attend to each other by torch's fused function, as in timm's blocks."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(2, (3, 2, 2)).permute(2, 0, 3, 1, 4).unbind(0)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(attended.transpose(1, 2).flatten(2)).mean(1)


class Scaled(nn.Module):
    """Logits times a parameter without axes, such as CLIP's."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(3, outputs), nn.Parameter(torch.tensor(2.0))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * self.layer(features)


class Tracking(nn.Module):
    """Keeps in buffers what it reads, and in an attribute what it returned last, with its graph."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(shape))

    def forward(self, features: Tensor) -> Tensor:
        self.calls += 1
        self.mean.lerp_(features.detach().mean(0), 0.1)
        self.last = 2 * features
        return self.last


class Featurizer(nn.Module):
    """Elementwise, so that it serves any shape of features: tanh(weight · input)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape, dtype=FLOAT64))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.weight * inputs)


@frozen
class HeadCase:
    """A head: how it is built for so many outputs, and the shape of what it reads (of indices below ``indices``).

    BackPACK lacks a formula for one of its parameters where ``formula`` is false.
    """

    build: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    indices: int = 0
    closed_form: bool = False
    recurrent: bool = False
    formula: bool = True
    training: bool = False

    def head(self, outputs: int) -> nn.Module:
        return self.build(outputs).to(FLOAT64).train(self.training)

    def inputs(self, samples: int) -> Tensor:
        if self.indices:
            return torch.randint(self.indices, (samples, *self.shape))
        return torch.randn(samples, *self.shape, dtype=FLOAT64)

    @property
    def routes(self) -> tuple[Route, ...]:
        if self.recurrent or not self.formula:  # BackPACK's formulas for it cannot be differentiated again
            return "auto", "functional"
        every: tuple[Route, ...] = ("auto", "backpack", "functional")
        return (*every, "closed_form") if self.closed_form else every


def _batch_norm(features: int, kind: type[nn.Module] = nn.BatchNorm1d) -> nn.Module:
    norm = kind(features)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.normal_(norm.weight)
    return norm


def _drawn(norm: nn.Module) -> nn.Module:
    for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0) if name == "running_var" else nn.init.normal_(tensor)
    return norm


def _frozen_first(outputs: int) -> nn.Module:
    head = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs))
    head[0].requires_grad_(False)
    return head


def _convolution(layer: nn.Module, shape: tuple[int, ...]) -> HeadCase:
    width = layer(torch.zeros(1, *shape)).flatten(1).shape[1]
    arguments = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}

    def build(outputs: int) -> nn.Module:
        made = type(layer)(
            layer.in_channels, layer.out_channels, layer.kernel_size, bias=layer.bias is not None, **arguments
        )
        return nn.Sequential(made, nn.Tanh(), nn.Flatten(), nn.Linear(width, outputs))

    return HeadCase(build, shape)


HEADS: dict[str, HeadCase] = {
    "linear": HeadCase(lambda c: nn.Linear(3, c), (3,), closed_form=True),
    "linear without bias": HeadCase(lambda c: nn.Linear(3, c, bias=False), (3,), closed_form=True),
    "linear in a sequence": HeadCase(lambda c: nn.Sequential(nn.Linear(3, c)), (3,), closed_form=True),
    "two layers": HeadCase(
        lambda c: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, c)), (3,), closed_form=True
    ),
    "in-place activation": HeadCase(
        lambda c: nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, c)), (3,)
    ),
    "three layers": HeadCase(
        lambda c: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4, bias=False), nn.GELU(), nn.Linear(4, c)),
        (3,),
        closed_form=True,
    ),
    "identities": HeadCase(
        lambda c: nn.Sequential(nn.Identity(), nn.Linear(3, 4), nn.Identity(), nn.Linear(4, c), nn.Identity()),
        (3,),
        closed_form=True,
    ),
    "activation first": HeadCase(lambda c: nn.Sequential(nn.Tanh(), nn.Linear(3, c)), (3,), closed_form=True),
    "frozen first layer": HeadCase(_frozen_first, (3,)),
    "tokens": HeadCase(lambda c: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, c), MeanOverTokens()), (5, 3)),
    "conv1d": _convolution(nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), (2, 5)),
    "conv2d": _convolution(
        nn.Conv2d(2, 4, (2, 3), stride=(1, 2), padding=(0, 1), dilation=(2, 1), groups=2), (2, 4, 5)
    ),
    "conv3d": _convolution(nn.Conv3d(1, 2, 2, stride=2, padding=1, bias=False), (1, 3, 3, 3)),
    "transposed conv1d": _convolution(nn.ConvTranspose1d(2, 2, 3, stride=2, padding=1, groups=2), (2, 4)),
    "transposed conv2d": _convolution(nn.ConvTranspose2d(2, 2, 2, dilation=2), (2, 3, 3)),
    "transposed conv3d": _convolution(nn.ConvTranspose3d(1, 2, 2, stride=2, padding=1), (1, 2, 2, 2)),
    "batch norm": HeadCase(
        lambda c: nn.Sequential(_batch_norm(3), nn.Linear(3, 4), _batch_norm(4), nn.Tanh(), nn.Linear(4, c)), (3,)
    ),
    "batch norm of images": HeadCase(
        lambda c: nn.Sequential(
            nn.Conv2d(1, 2, 2), _batch_norm(2, nn.BatchNorm2d), nn.Tanh(), nn.Flatten(), nn.Linear(8, c)
        ),
        (1, 3, 3),
    ),
    "group norm": HeadCase(
        lambda c: nn.Sequential(
            nn.Conv1d(2, 4, 2), _drawn(nn.GroupNorm(2, 4)), nn.Tanh(), nn.Flatten(), nn.Linear(12, c)
        ),
        (2, 4),
    ),
    "layer norm of tokens": HeadCase(
        lambda c: nn.Sequential(nn.Linear(3, 4), _drawn(nn.LayerNorm(4)), nn.Linear(4, c), MeanOverTokens()), (5, 3)
    ),
    "layer norm": HeadCase(
        lambda c: nn.Sequential(_drawn(nn.LayerNorm((2, 3))), nn.Flatten(), nn.Linear(6, c)), (2, 3)
    ),
    "instance norm": HeadCase(
        lambda c: nn.Sequential(_drawn(nn.InstanceNorm1d(2, affine=True)), nn.Tanh(), nn.Flatten(), nn.Linear(8, c)),
        (2, 4),
    ),
    "instance norm with running statistics": HeadCase(
        lambda c: nn.Sequential(
            _drawn(nn.InstanceNorm1d(2, affine=True, track_running_stats=True)),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(8, c),
        ),
        (2, 4),
    ),
    "RMS norm": HeadCase(lambda c: nn.Sequential(nn.Linear(3, 4), _drawn(nn.RMSNorm(4)), nn.Linear(4, c)), (3,)),
    "recurrent": HeadCase(
        lambda c: nn.Sequential(nn.RNN(3, 4, batch_first=True), ReduceTuple(0), nn.Flatten(), nn.Linear(8, c)),
        (2, 3),
        recurrent=True,
    ),
    "LSTM": HeadCase(
        lambda c: nn.Sequential(nn.LSTM(3, 2, batch_first=True), ReduceTuple(0), nn.Flatten(), nn.Linear(4, c)),
        (2, 3),
        recurrent=True,
    ),
    "first layer in place": HeadCase(lambda c: nn.Sequential(nn.LeakyReLU(0.5, inplace=True), nn.Linear(3, c)), (3,)),
    "functions in place": HeadCase(InPlace, (3,)),
    "attention": HeadCase(Attention, (5, 4)),
    "0-dim parameter": HeadCase(Scaled, (3,), formula=False),
    "spectral norm": HeadCase(
        lambda c: nn.Sequential(spectral_norm(nn.Linear(3, 4)), nn.Linear(4, c)), (3,), formula=False, training=True
    ),
    "moving statistics": HeadCase(
        lambda c: nn.Sequential(
            _drawn(nn.InstanceNorm1d(2, affine=True, track_running_stats=True)),
            nn.Flatten(),
            Tracking(8),
            nn.Linear(8, c),
        ),
        (2, 4),
        training=True,
    ),
    "embedding": HeadCase(
        lambda c: nn.Sequential(nn.Embedding(5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6, c)), (2,), indices=5
    ),
    "embedding alone": HeadCase(lambda c: nn.Sequential(nn.Embedding(5, c)), (), indices=5),
}


SIZES: tuple[tuple[int, ...], ...] = ((4, 4), (1, 5, 2), (1,), (1, 1, 1), (7,))


def slow_but(quick: object, values: Iterable[object]) -> list[Any]:
    """Return parameters of a test; all but one are marked slow."""
    return [pytest.param(value, id=str(value), marks=() if value == quick else pytest.mark.slow) for value in values]


def oracle_gradients(
    head: nn.Module, features: Tensor, labels: Tensor, loss: Loss, names: tuple[str, ...] | None = None
) -> Tensor:
    """[N, P] one sample after the other through plain autograd, with a graph; by all trainable parameters or some.

    Each sample finds inputs and buffers as they were, and attention as plain steps, which have a second derivative.
    """
    parameters = [p for n, p in head.named_parameters() if (p.requires_grad if names is None else n in names)]
    rows = []
    for n in range(len(features)):
        buffers = {name: buffer.clone() for name, buffer in head.named_buffers()}
        with sdpa_kernel(SDPBackend.MATH):
            logits = torch.func.functional_call(head, buffers, (features[n : n + 1].clone(),))
        value = loss(logits, labels[n : n + 1]).sum()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters, create_graph=True)]))
    return torch.stack(rows)


def oracle_moments(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    sizes: tuple[int, ...],
    loss: Loss,
    names: tuple[str, ...] | None = None,
) -> GradientMoments:
    """Moments by the definition, from the gradients of one sample after the other."""
    domains = oracle_gradients(head, features, labels, loss, names).split(list(sizes))
    mean = torch.stack([g.sum(0) / len(g) for g in domains])
    variance = torch.stack([((g - g.mean(0)) ** 2).sum(0) / len(g) for g in domains])
    return GradientMoments(sizes, mean, variance, Layout.of(head, names))


def value_of(moments: GradientMoments) -> Tensor:
    """A number that every entry of mean, variance and second moment takes part in, the penalty among them."""
    shape, draws = moments.mean.shape, torch.Generator().manual_seed(1)
    tilt = torch.randn(2, *shape, generator=draws, dtype=moments.mean.dtype)
    return distance_to_mean(moments.variance) + (tilt[0] * moments.mean + tilt[1] * moments.second_moment).sum()


def derivatives(value: Tensor, *modules: nn.Module) -> list[Tensor]:
    """Gradients of a value by all trainable parameters of the modules; zeros where it does not depend on one."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def assert_same_moments(found: Sequence[Tensor], expected: Sequence[Tensor], given: Sequence[Tensor]) -> None:
    """Compare means and variances, and their gradients by what they were computed from."""
    assert_close(found, expected, **EXACT)
    weights = [torch.randn_like(expected[0]) for _ in range(2)]
    for used in ([0, 1], [0], [1]):  # a moment that nobody reads has no gradient to pull back
        by_found, by_expected = (
            torch.autograd.grad([m[i] for i in used], given, [weights[i] for i in used], retain_graph=True)
            for m in (found, expected)
        )
        assert min(g.abs().max() for g in by_expected) > 1e-3
        assert_close(by_found, by_expected, **EXACT)
