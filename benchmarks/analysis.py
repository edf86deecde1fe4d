"""Seconds of what an analysis of a head that is not linear waits for, beside curvlinops and scipy."""

import copy
import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Generator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from benchmarks.table import Cell, Number, Table, Verdict
from benchmarks.ways import Disagreement
from fishr.data.caches.domain_writing import write_records
from fishr.data.caches.encoding import Tree
from fishr.diagnostics import inconsistency_second_order_pairs, measure, measure_network, top_eigenvalues
from fishr.diagnostics.operators import quiet
from fishr.losses import BinaryCrossEntropy, CrossEntropy, Loss
from fishr.training.recorder import KIND, STATISTICS

OURS, THEIRS = "ours", "scipy eigsh on curvlinops"
_RANK, _RIDGE, _EPSILON = 5, 1e-3, 0.1
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
    digits, pair = (make_problem(widths, domains, torch.float64) for domains in (sizes, sizes[:2]))
    hidden, inputs, four = (20, 16), 8, (30, 20)
    if not quick:
        hidden, inputs, four = (390, 390), 128, (3250, 3250, 497, 497)
    head = make_problem((*hidden, 1), four, torch.float64)
    spectra = make_problem((*hidden, 1), four[1:3], torch.float64)
    network = make_problem((inputs, *hidden, 1), four, torch.float32)
    options = {"epsilon": _EPSILON, "ridge": _RIDGE}

    def inconsistency(problem: Problem) -> Tensor:
        return inconsistency_second_order_pairs(*problem.arguments, **options).value

    rows = (
        *_rows("inconsistency to second order", digits, partial(inconsistency, digits), None, 5.0, quick),
        # Of a small head ours is of the Hessian itself.
        *_rows(
            "inconsistency to second order",
            pair,
            partial(inconsistency, pair),
            None if quick else partial(_pairs, pair),
            None,
            quick,
        ),
        *_rows(
            f"{_RANK} largest eigenvalues",
            spectra,
            lambda: top_eigenvalues(*spectra.arguments, rank=_RANK).value,
            partial(_eigenvalues, spectra),
            None,
            quick,
        ),
        *_rows("all of a head", head, lambda: measure(*head.arguments, rank=_RANK), None, 20.0, quick),
        *_rows("all of a network", network, lambda: measure_network(*network.arguments), None, 60.0, quick),
        *map(_assembled, (2, 4) if quick else (20, 200)),
    )
    headers = ("what", "of", "way", "seconds", "processor s", "× ours", "apart", "peak MiB", "target")
    return Table(
        "Analysis of heads that are not linear, each way once; memory of records that are put together", headers, rows
    )


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
    """In float32, which is its fastest, to the same tolerance for the largest."""
    from scipy.sparse.linalg import eigsh

    rounded = Problem(copy.deepcopy(problem.head).float(), problem.features.float(), problem.labels, problem.sizes)
    if problem.binary:
        rounded = evolve(rounded, labels=problem.labels.float())
    found = [
        eigsh(operator.to_scipy(), _RANK, which="LA", tol=1e-2, return_eigenvectors=False)
        for operator in rounded.operators("HessianLinearOperator")
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
    spent = Number(wall), Number(processor)
    rows: list[tuple[Cell, ...]] = [(what, problem.name, OURS, *spent, None, None, None, judged)]
    if theirs is not None:
        other, seconds, used = _timed(theirs)
        apart = float((other - value).norm() / value.norm())
        if not apart < _TOLERANCE:
            raise Disagreement(f"{THEIRS}: {what} differs by {apart:.1e} of its size, expected {_TOLERANCE:g}")
        ratio = Number(used / processor, 1)
        rows.append((what, problem.name, THEIRS, Number(seconds), Number(used), ratio, f"{apart:.0e}", None, None))
    return rows


def _assembled(count: int) -> tuple[Cell, ...]:
    """Peak memory of putting the records of a run together, which is to be the same for any number of them."""
    width = 50_000

    def records() -> Generator[Tree]:
        for step in range(count):
            yield {"risks": np.full(3, step, np.float64), "variance": np.full((3, width), step, np.float32)}

    with tempfile.TemporaryDirectory() as folder:
        # Loads h5py, which is no part of it.
        write_records(Path(folder, "first.h5"), KIND, {}, 1, ({"risks": np.zeros(3)} for _ in range(1)))
        tracemalloc.start()
        _, wall, processor = _timed(lambda: write_records(Path(folder, STATISTICS), KIND, {}, count, records()))
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    of = f"{count} records of 3 × {width:,} parameters"
    return f"{STATISTICS} put together", of, OURS, Number(wall), Number(processor), None, None, Number(peak, 1), None


def _timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the result, and wall and processor seconds."""
    with quiet():
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        found = call()
        after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found, time.perf_counter() - start, used
