"""What people hand over by mistake: one line that says what was got and what is expected, wherever it enters."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fishr.data.arrays import from_arrays
from fishr.diagnostics import measure
from fishr.errors import InputError
from fishr.losses import CrossEntropy, Loss, loss_deltas
from fishr.observation import observe
from fishr.statistics import covariance_products, gradient_gram, gradient_moments, linear_moments, per_sample_gradients
from fishr.types import DomainBatch, Problem

SIZES = (2, 3)
X, Y = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])


class Returns(nn.Module):
    """A layer whose logits come in something else."""

    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer, self.wrap = nn.Linear(3, 2), wrap

    def forward(self, features: Tensor) -> object:
        return self.wrap(self.layer(features))


def losses(wrap: Callable[[Tensor], object]) -> Loss:
    return lambda logits, labels: wrap(CrossEntropy()(logits, labels))  # type: ignore[return-value]


# Each way that a head, features and labels enter.
ENTRIES: dict[str, Callable[..., object]] = {
    "moments": lambda head, x, y, loss: gradient_moments(head, x, y, SIZES, loss),
    "backpack": lambda head, x, y, loss: gradient_moments(head, x, y, SIZES, loss, "backpack"),
    "functional": lambda head, x, y, loss: gradient_moments(head, x, y, SIZES, loss, "functional"),
    "gradients": per_sample_gradients,
    "Gram matrix": gradient_gram,
    "observation": lambda head, x, y, loss: observe(nn.Identity(), head, DomainBatch(x, y, SIZES), loss).losses,
    "diagnostics": lambda head, x, y, loss: measure(head, x, y, SIZES, loss),
}
PLAIN: dict[str, object] = {"head": nn.Sequential(nn.Linear(3, 2)), "x": X, "y": Y, "loss": CrossEntropy()}
WRONG: dict[str, tuple[dict[str, object], str]] = {
    "numpy features": ({"x": X.numpy()}, r"(features|inputs): got a numpy\.ndarray, expected a torch\.Tensor"),
    "list of features": ({"x": X.tolist()}, r"(features|inputs): got a builtins\.list, expected a torch\.Tensor"),
    "numpy labels": ({"y": Y.numpy()}, r"labels: got a numpy\.ndarray, expected a torch\.Tensor"),
    "no labels": ({"y": None}, r"labels: got None, expected a torch\.Tensor"),
    "labels of another length": ({"y": Y[:4]}, r"labels: got 4 rows, expected 5"),
    "function as head": ({"head": torch.tanh}, r"head: got a .*builtin.*, expected a .*Module"),
    "dictionary": ({"head": Returns(lambda f: {"logits": f})}, "head: got a dict from Returns, expected a tensor of"),
    "tuple": ({"head": Returns(lambda f: (f, f))}, "head: got a tuple from Returns, expected a tensor of logits"),
    "mean over samples": ({"head": Returns(lambda f: f.mean(0))}, r"head: got shape \(2,\) from Returns for"),
    "lists as losses": ({"loss": losses(Tensor.tolist)}, "loss: got a list from <lambda>, expected a tensor"),
    "column of losses": ({"loss": losses(lambda v: v.unsqueeze(1))}, r"loss: got shape \(\d, 1\) from .*; flatten it"),
    "mean loss": ({"loss": losses(torch.mean)}, r"loss: got shape \(\) from .*, one number a sample; use CrossEntropy"),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", WRONG)
def test_it_is_said_in_one_line_at_every_entry(name: str, entry: str) -> None:
    changes, message = WRONG[name]
    with pytest.raises(InputError, match=message) as raised:
        ENTRIES[entry](*(PLAIN | changes).values())
    assert "\n" not in str(raised.value)


def inference_head() -> nn.Module:
    with torch.inference_mode():
        return nn.Linear(3, 2)


HEADS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "DataParallel": (lambda: nn.DataParallel(nn.Linear(3, 2)), r"head: got a DataParallel, .* give its \.module"),
    "DataParallel inside": (lambda: nn.Sequential(nn.DataParallel(nn.Linear(3, 2))), r"head: got a DataParallel, "),
    "lazy": (lambda: nn.LazyLinear(2), "head: parameter 'weight' of LazyLinear has no shape yet, .* call it once"),
    "inference mode": (inference_head, r"head: parameter 'weight' was created in torch\.inference_mode\(\)"),
}


@pytest.mark.parametrize("entry", ["moments", "backpack", "functional", "gradients", "Gram matrix", "diagnostics"])
@pytest.mark.parametrize("name", HEADS)
def test_heads_that_no_statistic_can_be_taken_of(name: str, entry: str) -> None:
    build, message = HEADS[name]
    with pytest.raises(InputError, match=message):
        ENTRIES[entry](build(), X, Y, CrossEntropy())


def test_a_lazy_head_is_no_problem_once_it_has_a_shape() -> None:
    head = nn.LazyLinear(2)
    with pytest.raises(InputError, match="head: parameter 'weight' of LazyLinear has no shape yet"):
        Problem.of(head, domains=2)
    head(X)
    assert Problem.of(head, domains=2).zeros().shape == (2, 8)


def test_what_else_an_observation_is_not_made_of() -> None:
    with pytest.raises(InputError, match="batch: got a tuple, expected a DomainBatch"):
        observe(nn.Identity(), nn.Linear(3, 2), (X, Y, SIZES))  # type: ignore[arg-type]
    pair = observe(lambda x: (x, x), nn.Linear(3, 2), DomainBatch(X, Y, SIZES))  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match="featurizer: got a tuple from <lambda>, expected a tensor of features"):
        pair.losses  # noqa: B018


@pytest.mark.parametrize("wrap", [tuple, list, torch.tensor, np.array, lambda sizes: torch.tensor(sizes).int()])
def test_sizes_may_come_in_any_sequence_of_whole_numbers(wrap: Callable[[tuple[int, ...]], object]) -> None:
    head, sizes = nn.Linear(3, 2), wrap(SIZES)
    expected = gradient_moments(head, X, Y, SIZES)
    found = gradient_moments(head, X, Y, sizes)  # type: ignore[arg-type]
    deltas = loss_deltas(CrossEntropy(), head(X), Y)
    assert found.count == DomainBatch(X, Y, sizes).sizes == linear_moments(deltas, X, sizes).count == SIZES
    assert torch.equal(found.variance, expected.variance)
    assert covariance_products(torch.eye(5), sizes).shape == (2, 2)  # type: ignore[arg-type]
    assert measure(head, X, Y, sizes, names=["risk"])["risk"].value.shape == (2,)  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [5, 2.5, (2.0, 3.0), torch.tensor([2.0, 3.0]), torch.tensor(5), None, ("2", "3")])
def test_other_sizes_are_refused_in_one_line(sizes: object) -> None:
    for call in (
        lambda: gradient_moments(nn.Linear(3, 2), X, Y, sizes),  # type: ignore[arg-type]
        lambda: DomainBatch(X, Y, sizes),  # type: ignore[arg-type]
        lambda: measure(nn.Linear(3, 2), X, Y, sizes),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=r"sizes: got .*, expected a whole number for each domain") as raised:
            call()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({"a": torch.utils.data.TensorDataset(X, Y)}, r"domain 'a': got a TensorDataset, expected \(inputs, labels\)"),
        ({"a": X}, r"domain 'a': got a Tensor, expected \(inputs, labels\)"),
        ({"a": (X,)}, r"domain 'a': got a tuple, expected \(inputs, labels\)"),
        ([(X, Y)], "training: got a list, expected a dict from each domain's name"),
    ],
)
def test_domains_that_are_no_pairs_of_arrays(domains: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_arrays(domains)  # type: ignore[arg-type]


@pytest.mark.parametrize("route", ["auto", "functional", "backpack"])
@pytest.mark.parametrize("own_loss", [False, True])
def test_inference_mode_gives_the_numbers_without_a_graph(route: str, own_loss: bool) -> None:
    head, loss = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), CrossEntropy()
    loss = losses(lambda value: value) if own_loss else loss
    expected = gradient_moments(head, X, Y, SIZES, loss, route).variance.detach()
    with torch.inference_mode():
        x, y = X * 1, Y * 1
        inside = gradient_moments(head, x, y, SIZES, loss, route).variance
        seen = observe(nn.Identity(), head, DomainBatch(x, y, SIZES), loss, route)
        observed, gram, deltas = seen.moments.variance, seen.gram, seen.deltas
    for found in (inside, observed, gradient_moments(head, x, y, SIZES, loss, route).variance):
        torch.testing.assert_close(found.detach(), expected)
    torch.testing.assert_close(gram, gradient_gram(head, X, Y, loss).detach())
    torch.testing.assert_close(deltas, loss_deltas(loss, head(X), Y).detach())
    assert not inside.requires_grad
