"""Borders to curvlinops and scipy, and repeated estimates."""

import warnings

import numpy
import pytest
import torch
from cases import FLOAT64
from diagnostics.dense import TIGHT
from torch.testing import assert_close

from fishr.diagnostics.hessian import DenseHessian
from fishr.diagnostics.operators import (
    Estimation,
    curvlinops_operator,
    largest_eigenpairs,
    quiet,
    repeated,
    scipy_operator,
)


def matrix(size: int = 20) -> torch.Tensor:
    half = torch.randn(size, size, dtype=FLOAT64)
    return half + half.T


def test_products_pass_through_both_borders() -> None:
    hessian, vectors = DenseHessian(matrix()), torch.randn(20, 3, dtype=FLOAT64)
    operator = curvlinops_operator(hessian)
    assert_close(operator @ vectors, hessian.whole @ vectors, **TIGHT)
    assert_close(operator @ vectors[:, 0], hessian.whole @ vectors[:, 0], **TIGHT)
    for like in (torch.zeros(1, dtype=FLOAT64), torch.zeros(1)):
        other = scipy_operator(lambda v: hessian.whole.to(v.dtype) @ v, 20, like)
        found = other @ vectors[:, 0].numpy().astype(other.dtype)
        assert found.dtype == other.dtype == like.numpy().dtype
        numpy.testing.assert_allclose(found, hessian.whole @ vectors[:, 0], rtol=1e-4, atol=1e-4)


def test_eigsh_finds_the_largest_not_the_farthest_from_zero() -> None:
    a = matrix() - 20 * torch.eye(20, dtype=FLOAT64)
    found = largest_eigenpairs(lambda v: a @ v, 20, a, 3, "a matrix")
    assert_close(found.values, torch.linalg.eigvalsh(a).flip(0)[:3], **TIGHT)
    assert_close(a @ found.vectors, found.vectors * found.values, **TIGHT)
    again = largest_eigenpairs(lambda v: a @ v, 20, a, 3, "a matrix")
    assert torch.equal(again.values, found.values)
    assert found.route == "scipy eigsh on a matrix"


def test_the_error_is_the_standard_error_of_the_mean() -> None:
    found = repeated(lambda: torch.randn(2000, dtype=FLOAT64), torch.zeros(1), Estimation(repeats=9), "noise")
    wider = 2.306 / 1.96  # Student's t with 8 degrees of freedom
    assert abs(float(found.error.mean()) - wider / 3) < 0.02
    assert abs(float(found.value.std()) - 1 / 3) < 0.02


def test_estimates_leave_the_users_own_draws_as_they_are() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    repeated(lambda: torch.randn(3), torch.zeros(1), Estimation(), "noise")
    assert torch.equal(torch.get_rng_state(), state)


def test_only_torchs_own_warning_is_kept_quiet() -> None:
    with quiet():
        warnings.warn("`torch.jit.script` is deprecated", FutureWarning, stacklevel=1)
        with pytest.warns(FutureWarning, match="another"):
            warnings.warn("another", FutureWarning, stacklevel=1)
