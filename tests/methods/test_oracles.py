"""Penalties and risks of methods against loops over samples in float64, with a missing domain, and on ranks."""

from collections.abc import Callable
from statistics import NormalDist, stdev

import pytest
import torch
from cases import EXACT, FLOAT64
from method_oracles import HEADS, OF_LINEAR_HEADS, ORACLES, Model, Seen, coral, mmd_of
from ranks import on_ranks
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.methods import (
    CAD,
    CORAL,
    EQRM,
    MMD,
    RDM,
    RSC,
    CausIRL,
    GroupDRO,
    InformationBottleneck,
)
from fishr.methods import LossVariance as Variance
from fishr.methods.causirl import random_cuts
from fishr.methods.coral import mean_and_covariance_gap
from fishr.observation import observe
from fishr.penalties import Penalty, Total
from fishr.ranks import ALONE, Ranks, mean_over_ranks
from fishr.types import DomainBatch, Problem


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
        assert_close(found, expected, atol=1e-10, rtol=1e-10)


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
