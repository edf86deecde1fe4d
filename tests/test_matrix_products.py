"""Products of matrices by oneDNN: values, derivatives and ``torch.func`` against torch's own operator."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

from fishr import matrix_products
from fishr.matrix_products import batched_matmul, linear, matmul, matmul_into, multiplied

SHAPES = [((96, 40), (40, 200)), ((3, 64, 100), (3, 100, 96)), ((1, 1024), (1024, 512)), ((7, 1280), (1280, 96))]
DIMS = [(0, 0), (0, None), (None, 0), (1, 1), (-1, 0)]


@pytest.fixture(autouse=True)
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Take oneDNN on any processor; returns a list with an entry for each of its products."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(matrix_products, "_mkl_is_narrow", lambda: True)
    monkeypatch.setattr(matrix_products, "_LEAST", 1 << 19)
    calls, plain = list[int](), matrix_products._of_two  # pyright: ignore[reportPrivateUsage]

    def counted(left: Tensor, right: Tensor) -> Tensor:
        calls.append(1)
        return plain(left, right)

    monkeypatch.setattr(matrix_products, "_of_two", counted)
    return calls


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def smooth(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda left, right: (product(left, right) / math.sqrt(left.shape[-1])).sin().sum()


def slopes(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The squared norm of the gradient of ``smooth``, for second derivatives."""
    return lambda *pair: sum((g.square().sum() for g in grad(smooth(product), (0, 1))(*pair)), torch.zeros(()))


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("function", [smooth, slopes])
def test_values_and_derivatives(shapes: Any, function: Any, used: list[int]) -> None:
    pair = drawn(*shapes)
    close(grad(function(matmul), (0, 1))(*pair), grad(function(torch.matmul), (0, 1))(*pair))
    assert used
    close(function(matmul)(*pair), function(torch.matmul)(*pair))


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("shapes", SHAPES[:2])
@pytest.mark.parametrize("function", [smooth, lambda product: grad(smooth(product), (0, 1)), slopes])
def test_under_vmap(shapes: Any, dims: Any, function: Any, used: list[int]) -> None:
    pair = [x if d is None else torch.stack([x, x.flip(-1)], d) for x, d in zip(drawn(*shapes), dims, strict=True)]
    close(vmap(function(matmul), dims)(*pair), vmap(function(torch.matmul), dims)(*pair))
    assert used


def test_vmap_within_vmap_and_outside_of_a_graph() -> None:
    left, right = drawn((2, 3, 64, 100), (2, 3, 100, 96))
    close(vmap(vmap(smooth(matmul)))(left, right), vmap(vmap(smooth(torch.matmul)))(left, right))
    found = list[tuple[Tensor, ...]]()
    for product in (matmul, torch.matmul):
        pair = left[0].requires_grad_(), right[0].requires_grad_()
        found.append(torch.autograd.grad(vmap(smooth(product))(*pair).sum(), pair))
    close(*found)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("shapes", SHAPES[:2])
def test_forward_mode(shapes: Any) -> None:
    pair, tangents = tuple(drawn(*shapes)), tuple(x.flip(0) for x in drawn(*shapes))
    close(jvp(smooth(matmul), pair, tangents), jvp(smooth(torch.matmul), pair, tangents))
    one = jvp(lambda left: smooth(matmul)(left, pair[1]), pair[:1], tangents[:1])
    close(one, jvp(lambda left: smooth(torch.matmul)(left, pair[1]), pair[:1], tangents[:1]))


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("shapes", [((3, 64, 90), (3, 90, 200)), ((3, 4, 5), (3, 5, 6))])
def test_into_a_tensor(shapes: Any, add: bool) -> None:
    left, right = drawn(*shapes)
    out = torch.full((3, left.shape[1], right.shape[2]), 2.0 if add else float("nan"))
    matmul_into(out, left, right, add)
    close(out, left @ right + 2 * add)
    close(batched_matmul(left, right), left @ right)


def test_strides_and_no_rows(used: list[int]) -> None:
    left, right = drawn((96, 300), (200, 300))
    wide = torch.randn(100, 500)[2:98, 100:400]
    close(matmul(left.T.contiguous().T, right.T), left @ right.T)
    close(matmul(wide, right.T), wide @ right.T)
    close(matmul(left.T, wide), left.T @ wide)
    assert len(used) == 3
    assert matmul(left[:0], right.T).shape == (0, 200)


def test_parts_of_longer_rows_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN multiplies them by its reference code, a thousand times as slowly."""
    rows, given = torch.randn(3, 40, 500), list[Tensor]()
    plain = torch.ops.mkldnn._linear_pointwise

    def seen(left: Tensor, right: Tensor, *rest: Any) -> Tensor:
        given.extend((left, right))
        return plain(left, right, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", seen)
    left, right = rows[:, 2:34, 50:250], rows[:, 4:36, 100:400]
    close(batched_matmul(left.mT, right), left.mT @ right)
    close(batched_matmul(right.mT, right), right.mT @ right)
    assert len(given) == 12
    assert all(matrix.is_contiguous() or matrix.mT.is_contiguous() for matrix in given)


def test_plain_operator_elsewhere(used: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = drawn((96, 300), (300, 200))
    matmul(left[:2], right[:, :2])
    matmul(left.double(), right.double())
    matmul(left.bfloat16(), right.bfloat16())
    with torch.autocast("cpu"):
        assert matmul(left, right).dtype == torch.bfloat16
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        matmul(left, right)
    monkeypatch.setattr(matrix_products, "_mkl_is_narrow", lambda: False)
    assert torch.equal(matmul(left, right), left @ right)
    assert not used


@pytest.mark.parametrize("bias", [False, True])
def test_a_module_with_other_products(bias: bool, used: list[int]) -> None:
    inputs = torch.randn(96, 300)
    module = nn.Sequential(nn.Linear(300, 100, bias=bias), nn.ReLU(), nn.Linear(100, 90, bias=bias))
    close(multiplied(module, linear)(inputs), module(inputs))
    assert len(used) == 2
    # The module itself keeps its products.
    module(inputs)
    assert len(used) == 2
