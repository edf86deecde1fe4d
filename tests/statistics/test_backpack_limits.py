"""What BackPACK gets wrong or lacks is refused by name, with a remedy that works."""

import copy
from math import prod

import pytest
import torch
from backpack.custom_module.reduce_tuple import ReduceTuple
from cases import EXACT, FLOAT64, MeanOverTokens, Twice, derivatives, oracle_moments
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.statistics import distance_to_mean, gradient_moments


class Bare(nn.Module):
    """A parameter that no layer owns."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.randn(3))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * self.layer(features)


class BesideItsLayer(nn.Module):
    """A layer's weight that is read a second time without the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(self.layer(features)) @ self.layer.weight


class WithStates(nn.Module):
    """A recurrent layer's outputs, and its last state once more."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        outputs, states = self.layer(features)
        return outputs.mean(1) + (states if isinstance(states, Tensor) else states[1])[0]


class Unused(nn.Module):
    """A layer that the output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.idle = nn.Linear(3, 3)

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(features)


class FramesInTheBatch(nn.Module):
    """Folds frames into the batch axis, so that a layer's rows are not samples."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, frames: Tensor) -> Tensor:
        out = self.layer(frames.flatten(0, 1).unsqueeze(1)).flatten(1)
        return out.unflatten(0, frames.shape[:2]).mean(1)[:, :2]


class OwnLinear(nn.Linear):
    """A subclass that computes something else than its class."""

    def forward(self, features: Tensor) -> Tensor:
        return 2 * super().forward(features)


class OwnConvolution(nn.Conv1d):
    """A subclass whose forward is its base's, but not what that calls."""

    def _conv_forward(self, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return 2 * super()._conv_forward(features, weight, bias)


class NamedLinear(nn.Linear):
    """A subclass that computes what its class computes."""

    def __init__(self, features: int, outputs: int, title: str) -> None:
        super().__init__(features, outputs)
        self.title = title


def tied() -> nn.Module:
    head = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    head[2].weight = head[0].weight
    return head


def convolution(**arguments: object) -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 2, 3, **arguments), nn.Flatten(), nn.LazyLinear(2))  # type: ignore[arg-type]


def transposed() -> nn.Module:
    layer = nn.ConvTranspose1d(1, 2, 3, stride=2, output_padding=1)
    return nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2))


# Head, features, and what the message must say.
REFUSED = {
    "layer without a formula": (lambda: nn.Sequential(nn.Linear(3, 3), nn.PReLU()), (3,), r"'1\.weight' of .*PReLU"),
    "part of a layer's forward of one's own": (
        lambda: nn.Sequential(OwnConvolution(1, 2, 3), nn.Flatten(), nn.LazyLinear(2)),
        (1, 5),
        r"'0\.weight' of .*OwnConvolution",
    ),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
        (3,),
        r"of torch\.nn\.utils\.parametriz",
    ),
    "tied weights": (tied, (3,), r"'2\.weight' of .*Linear: it is the same tensor as '0\.weight'"),
    "layer called twice": (Twice, (3,), r"'layer\.weight' of .*Linear: it is read more than once"),
    "weight beside its layer": (BesideItsLayer, (3,), r"'layer\.weight' of .*Linear: it is read more than once"),
    "bare parameter": (Bare, (3,), r"'scale' of test_backpack_route\.Bare|'scale' of .*Bare"),
    "subclass of a layer": (lambda: nn.Sequential(OwnLinear(3, 2)), (3,), r"'0\.weight' of .*OwnLinear"),
    "frames in the batch, convolution": (lambda: FramesInTheBatch(nn.Conv1d(1, 2, 2)), (4, 3), "20 rows for 5 samples"),
    "frames in the batch, linear": (
        lambda: FramesInTheBatch(nn.Sequential(nn.Flatten(), nn.Linear(3, 2))),
        (4, 3),
        "20 rows for 5 samples",
    ),
    "circular padding": (lambda: convolution(padding=1, padding_mode="circular"), (1, 5), "padding_mode='circular'"),
    "same padding": (lambda: convolution(padding="same"), (1, 5), "padding='same'"),
    "output padding": (transposed, (1, 5), "output_padding"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_right_statistic_is_refused_by_name_and_the_remedy_works(name: str) -> None:
    build, shape, message = REFUSED[name]
    features, labels = torch.randn(5, *shape, dtype=FLOAT64), torch.randint(2, (5,))
    head = build().to(FLOAT64)
    head(features)
    with pytest.raises(InputError, match=message + r'.*; use route="functional"') as raised:
        gradient_moments(head, features, labels, (2, 3), route="backpack")
    assert "\n" not in str(raised.value)
    expected = oracle_moments(head, features, labels, (2, 3), CrossEntropy())
    for route in ("functional", "auto"):
        found = gradient_moments(head, features, labels, (2, 3), route=route)
        assert_close(found.variance, expected.variance, **EXACT)


def test_a_parameter_that_the_loss_does_not_read_is_named() -> None:
    with pytest.raises(InputError, match=r"'idle\.weight' of .*Linear: no statistic came back .*; use route="):
        gradient_moments(Unused(), torch.randn(5, 3), torch.randint(2, (5,)), (2, 3), route="backpack")


class Residual(nn.Module):
    """Adds a layer's output to what the layer read, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, features: Tensor) -> Tensor:
        out = self.first(features)
        out += self.layer(out)
        return out


@pytest.mark.parametrize("below", [True, False])
def test_what_a_layer_read_may_not_be_overwritten_unless_only_its_bias_is_chosen(below: bool) -> None:
    """Plain torch refuses the first in its backward pass; ours need not go as far as the layer's input."""
    head, features, labels = Residual().to(FLOAT64), torch.randn(5, 3, dtype=FLOAT64), torch.randint(2, (5,))
    head.first.requires_grad_(below)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        head(features).sum().backward()
    for route in ("auto", "backpack"):
        with pytest.raises(InputError, match="layer Linear: its input is overwritten in place"):
            gradient_moments(head, features, labels, (2, 3), route=route)
    head.layer.weight.requires_grad_(False)
    expected = oracle_moments(head, features, labels, (2, 3), CrossEntropy())
    assert_close(gradient_moments(head, features, labels, (2, 3)).variance, expected.variance, **EXACT)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
def test_states_that_the_loss_reads_are_refused(kind: type[nn.RNNBase]) -> None:
    head, features, labels = WithStates(kind(3, 2, batch_first=True)), torch.randn(5, 4, 3), torch.randint(2, (5,))
    with (
        torch.no_grad(),
        pytest.raises(InputError, match=rf"{kind.__name__}: the loss reads its states .*; use route="),
    ):
        gradient_moments(head, features, labels, (2, 3), route="backpack")


def test_a_recurrent_layer_that_is_called_twice_is_refused() -> None:
    """It reads its weights once a time step, so that the number of readings does not tell."""
    layer, reduce = nn.RNN(3, 3, batch_first=True), ReduceTuple(0)
    head = nn.Sequential(layer, reduce, layer, reduce, MeanOverTokens())
    features, labels = torch.randn(5, 4, 3), torch.randint(2, (5,))
    with torch.no_grad(), pytest.raises(InputError, match=r"layer RNN: it is called more than once .*; use route="):
        gradient_moments(head, features, labels, (2, 3), route="backpack")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_may_be_there_if_it_is_not_chosen(name: str) -> None:
    """A linear layer before it, whose gradients depend on it, is served by the route that refuses it."""
    build, shape, _ = REFUSED[name]
    features, labels = torch.randn(5, *shape, dtype=FLOAT64), torch.randint(2, (5,))
    first = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), prod(shape)), nn.Unflatten(1, shape))
    head = nn.Sequential(first, build().to(FLOAT64)).to(FLOAT64)
    head(features)
    expected = oracle_moments(head, features, labels, (2, 3), CrossEntropy(), ("0.1.weight", "0.1.bias"))
    found = gradient_moments(head, features, labels, (2, 3), route="backpack", layers=("0",))
    assert_close(found.variance, expected.variance, **EXACT)
    by_found, by_expected = (derivatives(distance_to_mean(m.variance), head) for m in (found, expected))
    assert_close(by_found, by_expected, **EXACT)


def test_a_subclass_that_changes_nothing_is_served() -> None:
    head = nn.Sequential(NamedLinear(3, 4, "mine"), nn.Flatten(), nn.Linear(8, 2))
    tokens, labels = torch.randn(5, 2, 3), torch.randint(2, (5,))
    expected = gradient_moments(head, tokens, labels, (2, 3), route="functional")
    assert_close(gradient_moments(head, tokens, labels, (2, 3), route="backpack").variance, expected.variance)


def test_old_style_weight_norm_is_named() -> None:
    with pytest.warns(FutureWarning):
        head = nn.utils.weight_norm(nn.Linear(3, 2))
    with pytest.raises(InputError, match=r"'weight_g' of torch\.nn\.modules\.linear\.Linear: .*; use route="):
        gradient_moments(head, torch.randn(5, 3), torch.randint(2, (5,)), (2, 3), route="backpack")


@pytest.mark.parametrize("route", ["auto", "backpack", "functional"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("running", [True, False])
def test_batch_statistics_are_refused_and_left_alone(route: str, affine: bool, running: bool) -> None:
    norm = nn.BatchNorm1d(4, affine=affine, track_running_stats=running).train(running)
    head = nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 2))
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    with pytest.raises(InputError, match=r"'1' of torch.*BatchNorm1d.*batch statistics mix the samples.*eval mode"):
        gradient_moments(head, torch.randn(5, 3), torch.randint(2, (5,)), (2, 3), route=route)
    assert_close(head.state_dict(), before)


def test_a_head_in_bfloat16_is_refused_by_backpack_and_widened_by_the_others() -> None:
    head, features, labels = nn.Linear(3, 2).bfloat16(), torch.randn(5, 3), torch.randint(2, (5,))
    with pytest.raises(InputError, match=r"'weight' of .*Linear: got torch.bfloat16, expected float32.*; use route="):
        gradient_moments(head, features, labels, (2, 3), route="backpack")
    wide = oracle_moments(copy.deepcopy(head).float(), features, labels, (2, 3), CrossEntropy())
    for route in ("closed_form", "functional"):
        found = gradient_moments(head, features, labels, (2, 3), route=route).variance
        assert found.dtype is torch.float32
        assert_close(found, wide.variance)
