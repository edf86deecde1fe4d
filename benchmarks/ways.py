"""Four ways to the same penalty and its gradients by features and head: two of ours, two that one would write."""

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise

import torch
from attrs import frozen
from backpack import backpack, extend
from backpack.extensions import BatchGrad
from torch import Tensor, nn

import fishr

OURS, EXTENSION, BATCH_GRAD, VMAP = "closed form", "BackPACK extension", "BatchGrad", "vmap(grad)"
SCALE_FREE = "closed form, scale-free"
_TOLERANCE = 1e-3


class Disagreement(RuntimeError):
    """Two ways of computing the penalty gave different numbers, so their times are not comparable."""


@frozen
class Size:
    """A head and a batch: K domains of ``samples`` rows, F features, C classes, and a hidden layer if it is not 0."""

    domains: int
    samples: int
    features: int
    classes: int
    hidden: int = 0

    def __str__(self) -> str:
        widths = " → ".join(str(width) for width in (self.features, self.hidden, self.classes) if width)
        return f"{self.domains * self.samples}×{widths} ({self.domains} domains)"

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of each linear layer."""
        widths = [width for width in (self.features, self.hidden, self.classes) if width]
        return tuple(pairwise(widths))

    def head(self) -> nn.Module:
        """One linear layer, or several with a ReLU after each but the last."""
        first, *others = (nn.Linear(*layer) for layer in self.layers)
        return nn.Sequential(first, *(module for layer in others for module in (nn.ReLU(), layer))) if others else first


@frozen(eq=False)
class Problem:
    """One step's input: features that require grad, labels, a head, and the moving average so far."""

    features: Tensor
    labels: Tensor
    sizes: tuple[int, ...]
    head: nn.Module
    ema: float
    state: object

    @property
    def wanted(self) -> tuple[Tensor, ...]:
        """What the penalty is differentiated by."""
        return self.features, *self.head.parameters()


def make_problem(size: Size, ema: float, device: torch.device) -> Problem:
    """Random features and labels, with a moving average that has seen one batch."""
    generator = torch.Generator().manual_seed(0)
    rows = size.domains * size.samples
    labels = torch.randint(size.classes, (rows,), generator=generator).to(device)
    before, features = (torch.randn(rows, size.features, generator=generator).to(device) for _ in range(2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = size.head().to(device)
    sizes, penalty = (size.samples,) * size.domains, fishr.Fishr(ema=ema)
    state = penalty.init(fishr.Problem.of(head, size.domains))
    seen = fishr.observe(nn.Identity(), head, fishr.DomainBatch(before, labels, sizes))
    with torch.no_grad():
        _, state = penalty(seen, state, 0)
    return Problem(features.requires_grad_(), labels, sizes, head, ema, state)


Way = Callable[[], tuple[Tensor, ...]]


def ways(problem: Problem) -> dict[str, Way]:
    """Functions without arguments that return the penalty and its gradients by features and parameters."""
    return {
        OURS: lambda: _ours(problem, "auto"),
        EXTENSION: lambda: _ours(problem, "backpack"),
        BATCH_GRAD: _batch_grad(problem),
        VMAP: lambda: _vmap(problem),
    }


def scale_free(problem: Problem) -> Way:
    """The closed form of the scale-free distance: another number than that of the four ways."""
    return lambda: _ours(problem, "auto", "scale_free")


def check_agreement(found: dict[str, Way]) -> None:
    """Refuse ways that differ from ours by more than a thousandth, in the penalty or in a gradient.

    Raises:
        Disagreement: which, in what, by how much.
    """
    reference = found[OURS]()
    for name, way in found.items():
        for index, (ours, theirs) in enumerate(zip(reference, way(), strict=True)):
            apart, what = float((ours - theirs).norm() / theirs.norm()), f"gradient {index}" if index else "penalty"
            if not apart < _TOLERANCE:
                raise Disagreement(f"{name}: {what} differs by {apart:.1e} of its size, expected below {_TOLERANCE:g}")


def _with_gradients(value: Tensor, problem: Problem) -> tuple[Tensor, ...]:
    return value.detach(), *torch.autograd.grad(value, problem.wanted)


def _ours(problem: Problem, route: str, distance: str = "squared") -> tuple[Tensor, ...]:
    batch = fishr.DomainBatch(problem.features, problem.labels, problem.sizes)
    seen = fishr.observe(nn.Identity(), problem.head, batch, route=route)
    value, _ = fishr.Fishr(ema=problem.ema, distance=distance)(seen, problem.state, 1)
    return _with_gradients(value, problem)


def _batch_grad(problem: Problem) -> Way:
    """BackPACK as its documentation has it: every per-sample gradient with a graph, then variances of them."""
    # An extended module is a copy on the same parameters, so that the other ways see a plain head.
    head = deepcopy(problem.head)
    for own, shared in zip(head.modules(), problem.head.modules(), strict=True):
        for name, parameter in shared.named_parameters(recurse=False):
            setattr(own, name, parameter)
    extend(head)
    criterion = extend(nn.CrossEntropyLoss(reduction="sum"))

    def step() -> tuple[Tensor, ...]:
        loss = criterion(head(problem.features), problem.labels)
        with backpack(BatchGrad()):
            torch.autograd.grad(loss, [problem.features], create_graph=True)
        gradients = [parameter.grad_batch for parameter in head.parameters()]
        for parameter in head.parameters():
            del parameter.grad_batch
        return _with_gradients(_penalty(gradients, problem), problem)

    return step


def _vmap(problem: Problem) -> tuple[Tensor, ...]:
    def loss_of_one(parameters: dict[str, Tensor], z: Tensor, label: Tensor) -> Tensor:
        return nn.functional.cross_entropy(torch.func.functional_call(problem.head, parameters, (z,)), label)

    gradient = torch.func.vmap(torch.func.grad(loss_of_one), in_dims=(None, 0, 0))
    gradients = gradient(dict(problem.head.named_parameters()), problem.features, problem.labels)
    return _with_gradients(_penalty(list(gradients.values()), problem), problem)


def _penalty(gradients: list[Tensor], problem: Problem) -> Tensor:
    """The mean over domains and parameters of the squared distance of each domain's variance from their mean."""
    distance, columns = torch.zeros((), device=problem.features.device), 0
    for by_sample in gradients:
        flat = by_sample.flatten(1)
        statistic = torch.stack([part.var(0, correction=0) for part in flat.split(problem.sizes)])
        if problem.ema:
            memory = problem.state.value[:, columns : columns + flat.shape[1]]
            statistic = statistic + problem.ema / (1 - problem.ema) * memory
        distance = distance + (statistic - statistic.mean(0)).square().sum()
        columns += flat.shape[1]
    return distance / (len(problem.sizes) * columns)
