"""Time of a linear head's exact Hessian diagonals and top eigenvalues, beside BackPACK, curvlinops and scipy."""

from collections.abc import Callable
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from benchmarks.machine import device, interleaved
from benchmarks.table import Cell, Spread, Table, Verdict
from benchmarks.ways import Disagreement
from fishr.diagnostics import hessian_diagonal, top_eigenvalues
from fishr.diagnostics.operators import quiet

RANK, TARGET = 10, 10.0
OURS, BACKPACK = "closed form", "BackPACK DiagHessian"
XDIAG, EIGSH = "curvlinops xdiag, an estimate", "scipy eigsh on curvlinops"
# Threads of numpy's BLAS and of torch get into each other's way; that is ours to avoid, and theirs with this line.
ALONE = "the same, numpy's BLAS on one thread"
_PRODUCTS = 20
_TOLERANCE = 1e-6


@frozen(eq=False)
class Problem:
    """A head after a few steps of training on features of three domains, all of them in float64."""

    head: nn.Linear
    features: Tensor
    labels: Tensor
    sizes: tuple[int, ...]

    @property
    def arguments(self) -> tuple[nn.Linear, Tensor, Tensor, tuple[int, ...]]:
        return self.head, self.features, self.labels, self.sizes

    @property
    def domains(self) -> list[tuple[Tensor, Tensor]]:
        sizes = list(self.sizes)
        return list(zip(self.features.split(sizes), self.labels.split(sizes), strict=True))


def table(quick: bool) -> Table:
    """Milliseconds of each way for all three domains, and their ratios to the closed form.

    Raises:
        Disagreement: the ways do not give the same numbers.
    """
    problem = make_problem(12, 4, (20, 15, 20)) if quick else make_problem(2048, 65, (667, 667, 666))
    ways = {"Hessian diagonals": diagonals(problem), f"{RANK} largest eigenvalues": spectra(problem)}
    shape = f"{problem.head.in_features}→{problem.head.out_features}, N={len(problem.features)}, 3 domains, float64"
    return Table(
        f"Diagnostics of a linear head, {shape}; [quartiles]",
        ("quantity", "way", "ms", "× the closed form's", "apart", "target"),
        tuple(row for name, found in ways.items() for row in _rows(name, found, quick)),
    )


def make_problem(features: int, classes: int, sizes: tuple[int, ...]) -> Problem:
    torch.manual_seed(0)
    where, samples = device(), sum(sizes)
    labels = torch.randint(classes, (samples,), device=where)
    centres = torch.randn(classes, features, device=where, dtype=torch.float64)
    z = (centres[labels] + torch.randn(samples, features, device=where, dtype=torch.float64)).relu()
    head = nn.Linear(features, classes, device=where, dtype=torch.float64)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(z), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return Problem(head, z, labels, sizes)


def diagonals(problem: Problem) -> dict[str, Callable[[], Tensor]]:
    """[K, P] by each way; curvlinops has estimates alone, and this one is far off with the few products it is given."""
    from backpack import backpack, extend
    from backpack.extensions import DiagHessian

    # An extended module is a copy of the parameters, so that the other ways see a plain head.
    head = nn.Linear(problem.head.in_features, problem.head.out_features, device="meta")
    head.weight, head.bias = (nn.Parameter(p.detach().clone()) for p in problem.head.parameters())
    extend(head)
    criterion = extend(nn.CrossEntropyLoss())

    def by_backpack() -> Tensor:
        found = list[Tensor]()
        for features, labels in problem.domains:
            with backpack(DiagHessian()):
                criterion(head(features.detach().requires_grad_()), labels).backward()
            found.append(torch.cat([p.diag_h.flatten() for p in head.parameters()]))
            for p in head.parameters():
                del p.diag_h
        return torch.stack(found)

    def by_xdiag() -> Tensor:
        from curvlinops import xdiag

        torch.manual_seed(0)
        return torch.stack([xdiag(operator, _PRODUCTS) for operator in _operators(problem)])

    return {
        OURS: lambda: hessian_diagonal(*problem.arguments).value,
        BACKPACK: by_backpack,
        XDIAG: by_xdiag,
    }


def spectra(problem: Problem) -> dict[str, Callable[[], Tensor]]:
    """[K, 10] by each way, to the precision of float64."""
    from scipy.sparse.linalg import eigsh
    from threadpoolctl import threadpool_limits

    def by_scipy() -> Tensor:
        found = list[Tensor]()
        for operator in _operators(problem):
            values = eigsh(operator.to_scipy(), k=RANK, which="LA", return_eigenvectors=False)
            found.append(torch.from_numpy(values.copy()).sort(descending=True).values)
        return torch.stack(found)

    def by_scipy_alone() -> Tensor:
        with threadpool_limits(1, user_api="blas"):
            return by_scipy()

    return {
        OURS: lambda: top_eigenvalues(*problem.arguments, rank=RANK).value.cpu(),
        EIGSH: by_scipy,
        ALONE: by_scipy_alone,
    }


def _operators(problem: Problem) -> list[Any]:
    from curvlinops import HessianLinearOperator

    parameters, loss = list(problem.head.parameters()), nn.CrossEntropyLoss()
    return [
        HessianLinearOperator(problem.head, loss, parameters, [domain], check_deterministic=False)
        for domain in problem.domains
    ]


def _rows(quantity: str, found: dict[str, Callable[[], Tensor]], quick: bool) -> list[tuple[Cell, ...]]:
    with quiet():
        reference = found[OURS]()
        apart = {name: float((way() - reference).norm() / reference.norm()) for name, way in found.items()}
        for name, difference in apart.items():
            if name != XDIAG and not difference < _TOLERANCE:
                raise Disagreement(
                    f"{name}: {quantity} differs by {difference:.1e} of its size, expected {_TOLERANCE:g}"
                )
        times = interleaved(found, rounds=3, quick=quick)
    rows = list[tuple[Cell, ...]]()
    for name in found:
        ratio = None if name == OURS else Spread(*times.ratio(name, OURS), 1)
        judged = None if quick or ratio is None or name == ALONE else Verdict(ratio.median, TARGET, at_least=True)
        rows.append((quantity, name, times.milliseconds(name), ratio, f"{apart[name]:.0e}", judged))
    return rows
