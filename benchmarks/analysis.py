"""Seconds of what an analysis of a head that is not linear waits for, beside curvlinops and scipy."""

import resource
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from benchmarks.table import Cell, Number, Table, Verdict
from benchmarks.ways import Disagreement
from fishr.diagnostics import inconsistency_second_order_pairs, measure, measure_network, top_eigenvalues
from fishr.diagnostics.operators import quiet
from fishr.losses import BinaryCrossEntropy, CrossEntropy, Loss

OURS, THEIRS = "ours", "scipy eigsh on curvlinops"
_RANK, _RIDGE, _EPSILON = 21, 1e-3, 0.1
_TOLERANCE = 1e-2


@frozen(eq=False)
class Problem:
    """A head after some steps of training on samples of several domains."""

    head: nn.Module
    features: Tensor
    labels: Tensor
    sizes: tuple[int, ...]

    @property
    def arguments(self) -> tuple[nn.Module, Tensor, Tensor, tuple[int, ...], Loss]:
        return (
            self.head,
            self.features,
            self.labels,
            self.sizes,
            BinaryCrossEntropy() if self.binary else CrossEntropy(),
        )

    @property
    def binary(self) -> bool:
        return self.labels.ndim == 2

    @property
    def criterion(self) -> nn.Module:
        return nn.BCEWithLogitsLoss() if self.binary else nn.CrossEntropyLoss()

    @property
    def name(self) -> str:
        parameters = sum(p.numel() for p in self.head.parameters())
        return f"{parameters:,} parameters, {len(self.labels):,} samples, {len(self.sizes)} domains"

    def operators(self, kind: str) -> list[Any]:
        import curvlinops

        parameters, sizes = list(self.head.parameters()), list(self.sizes)
        data = zip(self.features.split(sizes), self.labels.split(sizes), strict=True)
        operator = getattr(curvlinops, kind)
        return [operator(self.head, self.criterion, parameters, [domain], check_deterministic=False) for domain in data]


def table(quick: bool) -> Table:
    """Wall and processor seconds of each, once: a call takes seconds to minutes.

    Raises:
        Disagreement: the ways do not give the same numbers.
    """
    widths, sizes = ((8, 6, 3), (60, 40, 60)) if quick else ((64, 32, 10), (599, 599, 599))
    digits = make_problem(widths, sizes, torch.float64)
    if quick:
        head = network = make_problem((8, 50, 40, 1), (30, 20), torch.float64)
    else:
        head = make_problem((390, 390, 1), (3250, 3250, 497, 497), torch.float64)
        network = make_problem((128, 390, 390, 1), (3250, 3250, 497, 497), torch.float32)
    options = {"epsilon": _EPSILON, "ridge": _RIDGE}
    rows = (
        *_rows(
            "inconsistency to second order",
            digits,
            lambda: inconsistency_second_order_pairs(*digits.arguments, **options).value,
            # Of a small head ours is of the Hessian itself.
            None if quick else lambda: _pairs(digits),
            5.0,
            quick,
        ),
        *_rows(
            f"{_RANK} largest eigenvalues",
            head,
            lambda: top_eigenvalues(*head.arguments, rank=_RANK).value,
            lambda: _eigenvalues(head),
            None,
            quick,
        ),
        *_rows("all of a head", head, lambda: measure(*head.arguments, rank=20), None, 20.0, quick),
        *_rows("all of a network", network, lambda: measure_network(*network.arguments), None, 60.0, quick),
    )
    headers = ("what", "of", "way", "seconds", "processor s", "× ours", "apart", "target")
    return Table("Analysis of heads that are not linear, each way once", headers, rows)


def make_problem(widths: tuple[int, ...], sizes: tuple[int, ...], dtype: torch.dtype) -> Problem:
    torch.manual_seed(0)
    samples = sum(sizes)
    classes = max(2, widths[-1])
    labels = torch.randint(classes, (samples,))
    features = (torch.randn(classes, widths[0])[labels] + 2 * torch.randn(samples, widths[0])).relu().to(dtype)
    layers = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())][:-1]
    head = nn.Sequential(*layers).to(dtype)
    problem = Problem(head, features, labels.to(dtype).unsqueeze(1) if widths[-1] == 1 else labels, sizes)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        problem.criterion(head(features), problem.labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return problem


def _eigenvalues(problem: Problem) -> Tensor:
    from scipy.sparse.linalg import eigsh

    found = [
        eigsh(operator.to_scipy(), _RANK, which="LA", tol=1e-4, ncv=3 * _RANK, return_eigenvectors=False)
        for operator in problem.operators("HessianLinearOperator")
    ]
    return torch.stack([torch.from_numpy(values.copy()).sort(descending=True).values for values in found])


def _pairs(problem: Problem) -> Tensor:
    """Of the Gauss-Newton matrices, with conjugate gradients for the inverse."""
    from curvlinops import CGInverseLinearOperator
    from curvlinops.examples import IdentityLinearOperator
    from scipy.sparse.linalg import eigsh

    operators, sizes = problem.operators("GGNLinearOperator"), list(problem.sizes)
    losses = nn.functional.cross_entropy(problem.head(problem.features), problem.labels, reduction="none").detach()
    risks = torch.stack([part.mean() for part in losses.split(sizes)])
    ratios = torch.full((len(sizes), len(sizes)), 1 / (1 + _RIDGE), dtype=risks.dtype)
    for a, below in enumerate(operators):
        shapes = [tuple(p.shape) for p in problem.head.parameters()]
        top = float(eigsh(below.to_scipy(), 1, which="LA", return_eigenvectors=False)[0])
        shifted = below + _RIDGE * top * IdentityLinearOperator(shapes, risks.device, risks.dtype)
        inverse = CGInverseLinearOperator(shifted, tolerance=1e-4, max_iter=1000, eps=1e-30)
        for b, above in enumerate(operators):
            if a != b:
                pencil = above.to_scipy(), 1, shifted.to_scipy()
                ratios[a, b] = float(
                    eigsh(*pencil, which="LA", Minv=inverse.to_scipy(), tol=1e-3, return_eigenvectors=False)[0]
                )
    difference = risks[None, :] - risks[:, None]
    return torch.maximum(difference.abs(), (difference + _EPSILON * ratios).abs())


def _rows(
    what: str,
    problem: Problem,
    ours: Callable[[], Any],
    theirs: Callable[[], Tensor] | None,
    target: float | None,
    quick: bool,
) -> list[tuple[Cell, ...]]:
    value, wall, processor = _timed(ours)
    judged = None if quick or target is None else Verdict(wall, target, at_least=False)
    rows: list[tuple[Cell, ...]] = [(what, problem.name, OURS, Number(wall), Number(processor), None, None, judged)]
    if theirs is not None:
        other, seconds, used = _timed(theirs)
        apart = float((other - value).norm() / value.norm())
        if not apart < _TOLERANCE:
            raise Disagreement(f"{THEIRS}: {what} differs by {apart:.1e} of its size, expected {_TOLERANCE:g}")
        ratio = Number(used / processor, 1)
        rows.append((what, problem.name, THEIRS, Number(seconds), Number(used), ratio, f"{apart:.0e}", None))
    return rows


def _timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the result, and wall and processor seconds."""
    with quiet():
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        found = call()
        after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found, time.perf_counter() - start, used
