"""Penalties and risks of methods against loops over samples in float64, with a missing domain, and on ranks."""

import math
from collections.abc import Callable
from statistics import NormalDist, stdev
from typing import Any

import numpy as np
import pytest
import torch
from attrs import frozen
from cases import EXACT, FLOAT64, derivatives
from ranks import on_ranks
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.methods import (
    CAD,
    CMA,
    CORAL,
    EQRM,
    HGP,
    MMD,
    RDM,
    RSC,
    SD,
    CausIRL,
    GroupDRO,
    Hutchinson,
    InformationBottleneck,
)
from fishr.methods import LossVariance as Variance
from fishr.methods.causirl import random_cuts
from fishr.methods.coral import mean_and_covariance_gap
from fishr.observation import Observation, observe
from fishr.penalties import Penalty, Total
from fishr.ranks import ALONE, Ranks, mean_over_ranks
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


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", [*ORACLES, *OF_LINEAR_HEADS])
def test_values_and_gradients_are_the_oracles(name: str, head: str) -> None:
    penalty, oracle = {**ORACLES, **OF_LINEAR_HEADS}[name]
    model = Model(head)
    if name in OF_LINEAR_HEADS and not head.startswith("linear"):
        with pytest.raises(InputError, match=rf"^{name}: got Sequential as the head"):
            penalty(model.observe(), penalty.init(model.problem), 0)
        return
    value, _ = penalty(model.observe(), penalty.init(model.problem), 0)
    expected = oracle(model.oracle())
    assert_close(value, expected, **EXACT)
    assert_close(model.derivatives(value), model.derivatives(expected), **EXACT)
    assert model.derivatives(value).abs().max() > 1e-6


def on_both(ranks: Ranks) -> list[Tensor]:
    """Values, states and gradients of all penalties, in which domain 1 is on one of two ranks alone."""
    model = Model("linear")
    rows = slice(None) if ranks.alone else [slice(0, 4), slice(4, None)][ranks.number]
    every = {name.replace(" ", "_"): penalty for name, (penalty, _) in {**ORACLES, **OF_LINEAR_HEADS}.items()}
    total = Total(**every, eqrm=EQRM(0.8), eqrm_of_the_paper=EQRM(0.8, form="paper"), pools=CausIRL())
    seen = model.observe(rows, ranks=ranks, seed=3)
    terms, state = total.evaluate(seen, total.init(model.problem), 0)
    found = [state["GroupDRO"]]
    for name, term in terms.items():
        (gradient,) = mean_over_ranks([model.derivatives(term.value)], ranks)
        assert gradient is not None, name
        found += [term.value.detach(), gradient]
    return found


@pytest.mark.slow
def test_two_ranks_are_one() -> None:
    # Interleaved samples of a domain come in another order on two ranks, as their sums.
    expected = on_both(ALONE)
    for found in on_ranks(2, on_both):
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_weights_of_a_missing_domain_stay() -> None:
    risk, model = GroupDRO(eta=2.0), Model("linear")
    first = risk.init(model.problem) + torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=FLOAT64)
    _, state = risk(model.observe(), first, 0)
    assert state[3] == first[3]
    assert_close(state[:3].logsumexp(0), first[:3].logsumexp(0), **EXACT)
    risks = torch.stack(model.oracle().risks).detach()
    assert_close(state[:3].softmax(0), (first[:3] + 2.0 * risks).softmax(0), **EXACT)


@pytest.mark.parametrize("features", [8, 9, 10, 40])
def test_covariances_of_few_samples_are_those_of_many(features: int) -> None:
    """Of 9 samples the inner products are taken where there are more features, else the entries."""
    draws = torch.Generator().manual_seed(0)
    groups = [torch.randn(n, features, dtype=FLOAT64, generator=draws).requires_grad_() for n in (2, 4, 3)]
    value = mean_and_covariance_gap(tuple(groups))
    expected = coral(Seen(nn.Identity(), {k: (group,) for k, group in enumerate(groups)}))
    assert_close(value, expected, **EXACT)
    found, theirs = (torch.autograd.grad(one, groups) for one in (value, expected))
    assert_close(found, theirs, **EXACT)


@pytest.mark.parametrize("distance", ["coral", "mmd"])
def test_pools_are_cut_at_random(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Domains 0, 1 and 2 of 3, 4 and 4 samples."""
    model = Model("linear")
    one, two, three = (features for features, *_ in model.oracle().domains.values())
    pools = torch.cat([one[:1], two[:3]]), torch.cat([one[1:], two[3:], three])
    mean, covariance = ((a - b).pow(2).mean() for a, b in zip(*([p.mean(0), p.T.cov()] for p in pools), strict=True))
    expected = {"coral": mean + covariance, "mmd": mmd_of(*pools, range(-3, 4))}[distance]
    assert [random_cuts(model.observe(seed=s)) for s in (1, 1)] == [random_cuts(model.observe(seed=1))] * 2
    drawn = [random_cuts(model.observe(seed=s)) for s in range(200)]
    assert [set(cuts) for cuts in zip(*drawn, strict=True)] == [{0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3}]
    monkeypatch.setattr("fishr.methods.causirl.random_cuts", lambda seen: [1, 3, 0])
    value, _ = CausIRL(distance)(model.observe(seed=1), (), 0)
    assert_close(value, expected, **EXACT)
    assert_close(model.derivatives(value), model.derivatives(expected), **EXACT)
    monkeypatch.setattr("fishr.methods.causirl.random_cuts", lambda seen: [1, 0, 0])
    assert CausIRL(distance)(model.observe(seed=1), (), 0)[0] == 0


def quantile_of(risks: list[float], share: float) -> float:
    width, normal = 1.06 * stdev(risks) * len(risks) ** -0.2, NormalDist()
    low, high = min(risks) - 9, max(risks) + 9
    for _ in range(100):
        middle = (low + high) / 2
        above = sum(normal.cdf((middle - risk) / width) for risk in risks) / len(risks) > share
        low, high = (low, middle) if above else (middle, high)
    return low


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_quantile_of_risks_and_its_gradient(share: float) -> None:
    numbers = [0.3, 1.1, 0.6, 2.0]
    inputs = torch.tensor(numbers, dtype=FLOAT64, requires_grad=True)
    batch = DomainBatch(inputs.unsqueeze(1), torch.zeros(4), (1, 1, 1, 1))
    seen = observe(nn.Identity(), nn.Identity(), batch, loss=lambda logits, labels: logits[:, 0])
    for form in ("domainbed", "paper"):
        value, _ = EQRM(share, form=form)(seen, (), 0)
        assert value.item() == pytest.approx(quantile_of(numbers, share), abs=1e-8)
    (found,) = torch.autograd.grad(EQRM(share, form="paper")(seen, (), 0)[0], inputs)
    for k in range(4):
        up, down = ([r + sign * 1e-5 * (i == k) for i, r in enumerate(numbers)] for sign in (1, -1))
        slope = (quantile_of(up, share) - quantile_of(down, share)) / 2e-5
        assert found[k].item() == pytest.approx(slope, abs=1e-6)


def test_a_single_domain_has_its_own_risk_as_quantile() -> None:
    model = Model("linear", [1, 1, 1])
    assert_close(EQRM()(model.observe(), (), 0)[0], model.oracle().risks[0], **EXACT)


@pytest.mark.parametrize(
    "penalty",
    [penalty for penalty, _ in (*ORACLES.values(), *OF_LINEAR_HEADS.values()) if hasattr(penalty, "least_domains")],
)
def test_a_batch_of_one_domain_is_refused(penalty: Penalty) -> None:
    model, name = Model("linear", [1, 1, 1]), type(penalty).__name__
    with pytest.raises(InputError, match=f"^{name}: got a batch with samples of 1 of 4 domains"):
        penalty(model.observe(), (), 0)
    with pytest.raises(InputError, match=f"^{name}: got 1 training domain, expected at least 2"):
        penalty.init(Problem.of(model.head, 1))


@pytest.mark.parametrize("penalty", [CORAL(), InformationBottleneck(), Variance()])
def test_a_domain_of_one_sample_is_refused_where_it_has_no_variance(penalty: Penalty) -> None:
    with pytest.raises(InputError, match=r"got domains of \(2, 1\) samples, expected at least 2 in each"):
        penalty(Model("linear", [0, 0, 1]).observe(), (), 0)


def test_labels_that_are_no_classes_are_refused() -> None:
    batch = DomainBatch(torch.randn(4, 4), torch.tensor([[0.3, 0.7]] * 4), (2, 2))

    def soft(logits: Tensor, labels: Tensor) -> Tensor:
        return -(logits.log_softmax(1) * labels).sum(1)

    seen = observe(nn.Identity(), nn.Linear(4, 2), batch, loss=soft)
    for penalty in (RSC(), CAD()):
        with pytest.raises(InputError, match="expected class indices"):
            penalty(seen, (), 0)


def test_anchors_without_neighbors_have_a_finite_gradient() -> None:
    """Classes of one sample, and a domain without another sample of the class."""
    model = Model("linear", [0, 0, 1, 2])
    for labels in ([0, 1, 2, 2], [0, 1, 2, 1], [0, 1, 2, 0]):
        model.labels = torch.tensor(labels)
        for penalty, _ in (pair for name, pair in ORACLES.items() if "CAD" in name):
            value, _ = penalty(model.observe(), (), 0)
            assert value.isfinite()
            assert model.derivatives(value).isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MMD(gammas=()), "gammas: got"),
        (lambda: RDM(gammas=(-1.0,)), "gammas: got"),
        (lambda: EQRM(quantile=1.0), "quantile: got 1.0"),
        (lambda: RSC(features=1.0), "features: got 1.0"),
        (lambda: CAD(temperature=0.0), "temperature: got 0.0"),
        (lambda: GroupDRO(eta=-1.0), "eta: got -1.0"),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        make()
