"""Krylov methods on blocks of vectors, whose products with a matrix are one batched pass."""

from collections.abc import Callable

import torch
from torch import Tensor


def block_conjugate_gradients(
    apply: Callable[[Tensor], Tensor], right: Tensor, tolerance: float, iterations: int
) -> Tensor:
    """Return X [P, M] with ‖A X_m − B_m‖ ≤ tolerance·‖B_m‖ for a positive definite A, given by V ↦ A V."""
    # All columns search in one space: the eigenvalues that stand apart are met once and not by each column alone.
    # Residuals are basis @ factors with an orthonormal basis, stable where columns become dependent (Dubrulle 2001).
    basis, factors = torch.linalg.qr(right)
    search, solved, norms = basis, torch.zeros_like(right), torch.linalg.vector_norm(right, dim=0)
    for _ in range(iterations):
        image = apply(search)
        step = torch.linalg.pinv(search.T @ image, hermitian=True)
        solved = solved + search @ (step @ factors)
        basis, turn = torch.linalg.qr(basis - image @ step)
        factors = turn @ factors
        if bool((torch.linalg.vector_norm(factors, dim=0) <= tolerance * norms).all()):
            break
        search = basis + search @ turn.T
    return solved


def lanczos_quadratures(apply: Callable[[Tensor], Tensor], starts: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights [M, steps] of Gauss quadratures of the spectrum seen from M unit vectors [P, M]."""
    # The columns advance side by side without a common space, as in algorithm 2 of Papyan 2020 (JMLR 21, 20-933).
    current, previous = starts, torch.zeros_like(starts)
    diagonal, beside = list[Tensor](), [starts.new_zeros(starts.shape[1])]
    for _ in range(steps):
        image = apply(current) - beside[-1] * previous
        diagonal.append((image * current).sum(0))
        image -= diagonal[-1] * current
        beside.append(torch.linalg.vector_norm(image, dim=0))
        # A start inside a small invariant space ends there; what follows has no weight.
        previous, current = current, image / beside[-1].clamp(min=torch.finfo(image.dtype).tiny)
    inner = torch.stack(beside[1:-1], 1)
    matrices = torch.diag_embed(torch.stack(diagonal, 1))
    matrices += torch.diag_embed(inner, 1) + torch.diag_embed(inner, -1)
    nodes, vectors = torch.linalg.eigh(matrices)
    return nodes, vectors[:, 0].square()


def largest_of_pencil(
    above: Callable[[Tensor], Tensor],
    solve: Callable[[Tensor], Tensor],
    right: Tensor,
    tolerance: float,
    steps: int,
) -> Tensor:
    """Return u [P, 1] of the largest λ in B u = λ M u, for V ↦ B V and V ↦ M⁻¹V, by block Lanczos from M⁻¹·right."""
    # It ends where the residual in the norm of M⁻¹ is tolerance·λ, or the space has nothing new.
    # Bases are orthonormal in the inner product of M, whose products with them are known without any.
    bases, metrics, images = list[Tensor](), list[Tensor](), list[Tensor]()
    block, metric, found = solve(right), right, right[:, :1]
    value, last = right.new_zeros(()), right.new_zeros(right.shape[1])
    for _ in range(steps):
        for basis, own in (*zip(bases, metrics, strict=True),) * 2:
            inner = own.T @ block
            block, metric = block - basis @ inner, metric - own @ inner
        gram = block.T @ metric
        if bases and (last @ gram @ last).clamp(min=0).sqrt() <= tolerance * value:
            break
        sizes, turns = torch.linalg.eigh((gram + gram.T) / 2)
        kept = sizes > torch.finfo(sizes.dtype).eps * torch.maximum(sizes[-1], value.square())
        if not kept.any():
            break
        root = turns[:, kept] / sizes[kept].sqrt()
        bases.append(block @ root)
        metrics.append(metric @ root)
        images.append(above(bases[-1]))
        whole = torch.cat(bases, 1)
        projected = whole.T @ torch.cat(images, 1)
        values, vectors = torch.linalg.eigh((projected + projected.T) / 2)
        value, found, last = values[-1], whole @ vectors[:, -1:], vectors[-root.shape[1] :, -1]
        block, metric = solve(images[-1]), images[-1]
    return found
