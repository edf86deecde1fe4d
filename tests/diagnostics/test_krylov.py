"""Krylov methods on blocks, against dense solutions."""

import pytest
import torch
from cases import FLOAT64
from diagnostics.dense import TIGHT
from torch import Tensor
from torch.testing import assert_close

from fishr.diagnostics.krylov import (
    block_conjugate_gradients,
    lanczos_quadratures,
    largest_of_pencil,
)


def positive(size: int, spread: float) -> Tensor:
    """A positive definite matrix with eigenvalues from 1 down to ``spread``."""
    turn = torch.linalg.qr(torch.randn(size, size, dtype=FLOAT64)).Q
    return turn * torch.logspace(0, torch.tensor(spread).log10().item(), size, dtype=FLOAT64) @ turn.T


@pytest.mark.parametrize("columns", [1, 6, 40])
def test_all_columns_are_solved(columns: int) -> None:
    matrix, right = positive(30, 1e-3), torch.randn(30, columns, dtype=FLOAT64)
    right[:, -1] = right[:, 0]
    found = block_conjugate_gradients(lambda v: matrix @ v, right, 1e-10, 100)
    assert_close(found, torch.linalg.solve(matrix, right), atol=1e-6, rtol=1e-6)
    off = torch.linalg.vector_norm(matrix @ found - right, dim=0) / torch.linalg.vector_norm(right, dim=0)
    assert (off <= 1e-9).all()


def test_a_block_takes_fewer_passes_than_a_column() -> None:
    matrix, right = positive(200, 1e-3), torch.randn(200, 20, dtype=FLOAT64)
    passes = dict[int, int]()
    for columns in (1, 20):

        def apply(vectors: Tensor, columns: int = columns) -> Tensor:
            passes[columns] = passes.get(columns, 0) + 1
            return matrix @ vectors

        block_conjugate_gradients(apply, right[:, :columns], 1e-6, 500)
    assert passes[20] < passes[1] / 3


def test_quadratures_are_exact_for_polynomials_and_ends_for_the_whole_space() -> None:
    matrix, steps = positive(12, 0.1), 4
    starts = torch.nn.functional.normalize(torch.randn(12, 3, dtype=FLOAT64), dim=0)
    nodes, weights = lanczos_quadratures(lambda v: matrix @ v, starts, steps)
    for power in range(2 * steps):
        expected = (starts * (torch.linalg.matrix_power(matrix, power) @ starts)).sum(0)
        assert_close((weights * nodes**power).sum(1), expected, **TIGHT)
    # An eigenvector sees its own eigenvalue alone, however many steps there are.
    values, vectors = torch.linalg.eigh(matrix)
    nodes, weights = lanczos_quadratures(lambda v: matrix @ v, vectors[:, :1], steps)
    assert_close((weights * nodes).sum(), values[0], atol=1e-6, rtol=1e-6)
    assert weights.isfinite().all()


@pytest.mark.parametrize("columns", [1, 4, 20])
def test_the_largest_of_a_pencil(columns: int) -> None:
    below, above = positive(20, 1e-3), positive(20, 1e-2)
    factor = torch.linalg.cholesky(below)
    right = torch.randn(20, columns, dtype=FLOAT64)
    u = largest_of_pencil(lambda v: above @ v, lambda v: torch.cholesky_solve(v, factor), right, 1e-9, 100)
    root = torch.linalg.inv(factor)
    expected = torch.linalg.eigvalsh(root @ above @ root.T)[-1]
    assert_close((u * (above @ u)).sum() / (u * (below @ u)).sum(), expected, **TIGHT)
