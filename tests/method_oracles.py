"""Slow loops over samples in float64 of penalties and risks of methods, and a model with a missing domain."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from attrs import frozen
from cases import FLOAT64, derivatives
from torch import Tensor, nn

from fishr.methods import (
    CAD,
    CMA,
    CORAL,
    HGP,
    MMD,
    RDM,
    RSC,
    SD,
    GroupDRO,
    Hutchinson,
    InformationBottleneck,
)
from fishr.methods import LossVariance as Variance
from fishr.observation import Observation, observe
from fishr.penalties import Penalty
from fishr.types import DomainBatch, Problem

HEADS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "linear without bias": lambda: nn.Linear(4, 3, bias=False),
    "two layers": lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)),
}
# The domain of each sample, of 4; the last has none.
IDS = [2, 0, 2, 0, 1, 1, 0, 2, 1, 2, 1]


@frozen(eq=False)
class Seen:
    """What an oracle reads: features, logits, labels and losses of each domain, and the head."""

    head: nn.Module
    domains: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]]

    @property
    def risks(self) -> list[Tensor]:
        return [losses.mean() for *_, losses in self.domains.values()]

    @property
    def samples(self) -> list[tuple[int, Tensor, Tensor, Tensor, Tensor]]:
        return [(k, *one) for k, parts in self.domains.items() for one in zip(*parts, strict=True)]

    def by_head(self) -> tuple[list[Tensor], list[Tensor]]:
        """Gradient [P] and Hessian [P, P] of each domain's risk by the head's parameters."""
        names, parameters = zip(*self.head.named_parameters(), strict=True)
        flat, gradients, hessians = torch.cat([p.flatten() for p in parameters]), [], []
        for features, _, labels, _ in self.domains.values():

            def risk(given: Tensor, features: Tensor = features, labels: Tensor = labels) -> Tensor:
                parts = given.split([p.numel() for p in parameters])
                own = {n: part.view(p.shape) for n, p, part in zip(names, parameters, parts, strict=True)}
                logits = torch.func.functional_call(self.head, own, (features,))
                return nn.functional.cross_entropy(logits, labels)

            gradients.append(torch.func.grad(risk)(flat))
            hessians.append(torch.func.jacrev(torch.func.jacrev(risk))(flat))
        return gradients, hessians


def sd(seen: Seen) -> Tensor:
    squares = [logits.pow(2).sum() / 3 for _, _, logits, _, _ in seen.samples]
    return sum(squares) / len(squares)


def over_pairs(distance: Callable[[int, int], Tensor], keys: list[int]) -> Tensor:
    pairs = [(i, j) for i in keys for j in keys if i < j]
    return sum(distance(i, j) for i, j in pairs) / len(pairs)


def coral(seen: Seen) -> Tensor:
    def distance(i: int, j: int) -> Tensor:
        one, other = seen.domains[i][0], seen.domains[j][0]
        means = (one.mean(0) - other.mean(0)).pow(2).mean()
        return means + (one.T.cov() - other.T.cov()).pow(2).mean()

    return over_pairs(distance, list(seen.domains))


def kernel(one: Tensor, other: Tensor, powers: range) -> Tensor:
    values = [sum(torch.exp(-(10.0**p) * (a - b).pow(2).sum()) for p in powers) for a in one for b in other]
    return sum(values) / len(values)


def mmd_of(one: Tensor, other: Tensor, powers: range) -> Tensor:
    return kernel(one, one, powers) + kernel(other, other, powers) - 2 * kernel(one, other, powers)


def mmd(seen: Seen) -> Tensor:
    domains = seen.domains
    return over_pairs(lambda i, j: mmd_of(domains[i][0], domains[j][0], range(-3, 4)), list(domains))


def bottleneck(seen: Seen) -> Tensor:
    found = []
    for features, *_ in seen.domains.values():
        center = features.mean(0)
        found.append(sum((z - center).pow(2).mean() for z in features) / (len(features) - 1))
    return sum(found) / len(found)


def worst(seen: Seen) -> Tensor:
    return max((losses for *_, losses in seen.domains.values()), key=lambda losses: losses.mean().item())


def all_losses(seen: Seen) -> Tensor:
    return torch.stack([loss for *_, loss in seen.samples])


def rdm(seen: Seen) -> Tensor:
    return mmd_of(worst(seen)[:, None], all_losses(seen)[:, None], range(-4, 4))


def variance(seen: Seen) -> Tensor:
    return sum(((part - part.mean()) ** 2).sum() / (len(part) - 1) for part in (worst(seen), all_losses(seen)))


def group_dro(seen: Seen) -> Tensor:
    q = [math.exp(0.5 * risk.item()) for risk in seen.risks]
    return sum(weight * risk for weight, risk in zip(q, seen.risks, strict=True)) / sum(q)


def rsc(seen: Seen) -> Tensor:
    masked, falls = [], []
    for _, z, logits, y, _ in seen.samples:
        leaf = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(seen.head(leaf[None])[0, y], leaf)
        masked.append(torch.from_numpy(slope.numpy() < np.percentile(slope.numpy(), 60)))
        after = seen.head((z * masked[-1])[None])[0]
        falls.append((logits.softmax(0)[y] - after.softmax(0)[y]).item())
    limit, losses = np.percentile(falls, 70), []
    for (_, z, _, y, _), mask, fall in zip(seen.samples, masked, falls, strict=True):
        kept = z if fall < limit else z * mask
        losses.append(nn.functional.cross_entropy(seen.head(kept[None]), y[None]))
    return sum(losses) / len(losses)


def cad(conditional: bool, flipped: bool, itself: bool) -> Callable[[Seen], Tensor]:
    def value(seen: Seen) -> Tensor:
        found = []
        for i, (k, z, _, y, _) in enumerate(seen.samples):
            others = [(j, *one) for j, one in enumerate(seen.samples) if j != i]
            alike = [j for j, _, _, _, label, _ in others if label == y]
            pool = [(j, d, z @ other / 0.3) for j, d, other, *_ in others if not conditional or j in alike]
            chosen = [s for j, d, s in pool if (d != k) == flipped]
            if not flipped and itself:
                chosen.append(torch.zeros((), dtype=FLOAT64))
            anchors = [j for j, d, _ in pool if (d != k) == flipped] if conditional else alike
            if anchors and chosen:
                found.append(torch.stack(chosen).logsumexp(0) - torch.stack([s for *_, s in pool]).logsumexp(0))
        return (-1 if flipped else 1) * 0.3 / 0.07 * sum(found) / len(found)

    return value


def hgp(seen: Seen) -> Tensor:
    gradients, hessians = seen.by_head()
    center, middle = sum(gradients) / len(gradients), sum(hessians) / len(hessians)
    terms = [
        2.0 * (h @ g - (middle @ center).detach()).pow(2).sum() + 3.0 * (g - center.detach()).pow(2).sum()
        for g, h in zip(gradients, hessians, strict=True)
    ]
    return sum(terms) / len(terms)


def spread(parts: list[Tensor]) -> Tensor:
    center = sum(parts) / len(parts)
    return sum((part - center).pow(2).sum() for part in parts) / len(parts)


def hutchinson(seen: Seen) -> Tensor:
    gradients, hessians = seen.by_head()
    return 2.0 * spread([h.diagonal() for h in hessians]) + 3.0 * spread(gradients)


def cma(seen: Seen) -> Tensor:
    gradients, hessians = seen.by_head()
    return 2.0 * spread(gradients) + 3.0 * spread(hessians)


ORACLES: dict[str, tuple[Penalty, Callable[[Seen], Tensor]]] = {
    "SD": (SD(), sd),
    "CORAL": (CORAL(), coral),
    "MMD": (MMD(), mmd),
    "IB": (InformationBottleneck(), bottleneck),
    "RDM": (RDM(), rdm),
    "loss variance": (Variance(), variance),
    "GroupDRO": (GroupDRO(eta=0.5), group_dro),
    "RSC": (RSC(0.4, 0.3), rsc),
    "CAD": (CAD(0.3), cad(conditional=False, flipped=True, itself=True)),
    "CAD not flipped": (CAD(0.3, flipped=False), cad(conditional=False, flipped=False, itself=True)),
    "CAD of the paper": (CAD(0.3, flipped=False, form="paper"), cad(conditional=False, flipped=False, itself=False)),
    "CondCAD": (CAD(0.3, conditional=True), cad(conditional=True, flipped=True, itself=False)),
    "CondCAD not flipped": (CAD(0.3, True, flipped=False), cad(conditional=True, flipped=False, itself=False)),
}
OF_LINEAR_HEADS: dict[str, tuple[Penalty, Callable[[Seen], Tensor]]] = {
    "HGP": (HGP(alpha=2.0, beta=3.0), hgp),
    "Hutchinson": (Hutchinson(alpha=2.0, beta=3.0), hutchinson),
    "CMA": (CMA(alpha=2.0, beta=3.0), cma),
}


class Model:
    """A featurizer and a head in float64, with a batch that lacks domain 3."""

    def __init__(self, head: str, ids: list[int] = IDS, classes: int = 3) -> None:
        torch.manual_seed(0)
        self.featurizer, self.head = nn.Linear(3, 4).to(FLOAT64), HEADS[head]().to(FLOAT64)
        self.problem = Problem.of(self.head, 4)
        self.ids, draws = torch.tensor(ids), torch.Generator().manual_seed(1)
        self.inputs = torch.randn(len(ids), 3, dtype=FLOAT64, generator=draws)
        self.labels = torch.randint(classes, (len(ids),), generator=draws)

    def observe(self, rows: slice = slice(None), **settings: Any) -> Observation:
        batch = DomainBatch.of(self.inputs[rows], self.labels[rows], self.ids[rows], number=4)
        return observe(self.featurizer, self.head, batch, **settings)

    def oracle(self) -> Seen:
        features = self.featurizer(self.inputs)
        logits = self.head(features)
        losses = nn.functional.cross_entropy(logits, self.labels, reduction="none")
        whole = (features, logits, self.labels, losses)
        present = sorted(set(self.ids.tolist()))
        return Seen(self.head, {k: tuple(part[self.ids == k] for part in whole) for k in present})

    def derivatives(self, value: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in derivatives(value, self.featurizer, self.head)])
