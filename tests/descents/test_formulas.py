"""Each descent against a slow loop in float64, with batch normalization, and with a penalty that compares domains."""

import copy
import statistics
from typing import Any

import pytest
import torch
from slow_steps import FLOAT64, ByHand, batch_of, check, experiment, trained
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module
from torch.testing import assert_close

from fishr.descents import GGAL, IGA, MLDG, SAGM, SAM, ANDMask, Fish, PCGrad, SANDMask
from fishr.penalties import ERM, Scaled, Total, VREx
from fishr.training import Objective


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The draws of every step."""
    monkeypatch.setattr(
        "fishr.training.step_gradients.StepGradients.generator", lambda self, name: torch.Generator().manual_seed(7)
    )
    return lambda: torch.Generator().manual_seed(7)


@pytest.mark.parametrize("descent", [SAM(rho=0.4), SAGM(rho=0.4, alpha=0.3)], ids=["sam", "sagm"])
def test_sharpness(descent: Any) -> None:
    """The gradient at shifted weights, whose pass leaves batch normalization alone; SAGM's mean with the first."""
    made = experiment(descent)
    hand = ByHand(made)
    for step in range(4):
        batch, before = batch_of(step), [p.detach().clone() for p in hand.module.parameters()]
        first = hand.gradients(batch, (0, 1, 2))
        buffers = {name: value.clone() for name, value in hand.module.named_buffers()}
        norm = torch.stack([g.square().sum() for g in first]).sum().sqrt()
        with torch.no_grad():
            for parameter, gradient in zip(hand.module.parameters(), first, strict=True):
                parameter += 0.4 * gradient / norm
                parameter -= (0.3 if isinstance(descent, SAGM) else 0.0) * gradient
        second = hand.gradients(batch, (0, 1, 2))
        with torch.no_grad():
            for parameter, value in zip(hand.module.parameters(), before, strict=True):
                parameter.copy_(value)
            for name, buffer in hand.module.named_buffers():
                buffer.copy_(buffers[name])
        halves = [0.5 * one + 0.5 * other for one, other in zip(first, second, strict=True)]
        hand.update(halves if isinstance(descent, SAGM) else second)
    state, _ = trained(made)
    check(hand, state)
    assert state.buffers["featurizer.1.num_batches_tracked"] == 4


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_and_mask_is_its_formula(tau: float) -> None:
    """Domains in their order, through the running statistics; signs counted entry by entry."""
    made = experiment(ANDMask(tau))
    hand = ByHand(made)
    for step in range(4):
        found = [hand.gradients(batch_of(step), (k,)) for k in range(3)]
        masked = list[Tensor]()
        for by_domain in zip(*found, strict=True):
            kept = torch.tensor([
                abs(sum(torch.sign(g.flatten()[i]).item() for g in by_domain)) >= 3 * tau
                for i in range(by_domain[0].numel())
            ])  # fmt: skip
            mean = sum(g.flatten() for g in by_domain) / 3
            masked.append((kept * mean * len(kept) / max(int(kept.sum()), 1)).view_as(by_domain[0]))
        hand.update(masked)
    state, records = trained(made)
    for name, value in hand.numbers().items():
        assert_close((state.parameters | state.buffers)[name], value, atol=1e-7, rtol=1e-7)
    assert all(len(record.domain_losses) == 3 for record in records)
    assert records[0].risk == pytest.approx(sum(records[0].domain_losses) / 3)


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_fish_is_its_formula(epsilon: float) -> None:
    """One update for each domain in turn, then the way back to 1 − ε of it; buffers likewise."""
    made = experiment(Fish(epsilon))
    hand = ByHand(made)
    for step in range(4):
        before = hand.numbers()
        for k in range(3):
            hand.update(hand.gradients(batch_of(step), (k,)))
        with torch.no_grad():
            for name, value in hand.module.state_dict().items():
                if value.is_floating_point():
                    value.copy_((1 - epsilon) * before[name] + epsilon * value)
    state, records = trained(made)
    check(hand, state)
    assert all(len(record.domain_losses) == 3 for record in records)


def entries(found: list[list[Tensor]], of_entry: Any) -> list[Tensor]:
    """A function of the domains' gradients by one entry, for each entry, divided by its mean weight in a parameter."""
    total = []
    for by_domain in zip(*found, strict=True):
        pairs = [of_entry(list(values)) for values in zip(*(g.flatten().tolist() for g in by_domain), strict=True)]
        share = 1e-10 + sum(weight for weight, _ in pairs) / len(pairs)
        moved = [weight * mean / share for weight, mean in pairs]
        total.append(torch.tensor(moved, dtype=FLOAT64).view_as(by_domain[0]))
    return total


@pytest.mark.parametrize(("tau", "k"), [(0.0, 1e-3), (0.5, 0.02), (1.0, 10.0)])
def test_sand_mask(tau: float, k: float) -> None:
    def of_entry(values: list[float]) -> tuple[float, float]:
        agreement = abs(sum((v > 0) - (v < 0) for v in values)) / len(values)
        mask = torch.tensor(k / statistics.variance(values) * (agreement - tau), dtype=FLOAT64).tanh().item()
        return max(0.0, mask), sum(values) / len(values)

    made = experiment(SANDMask(tau, k))
    hand = ByHand(made)
    before = hand.numbers()
    for step in range(4):
        hand.update(entries([hand.gradients(batch_of(step), (d,)) for d in range(3)], of_entry))
    state, _ = trained(made)
    for name, value in hand.numbers().items():
        assert_close((state.parameters | state.buffers)[name], value, atol=1e-9, rtol=1e-9)
    moved = not torch.equal(state.parameters["head.weight"], before["head.weight"])
    assert moved == (tau < 1)  # nothing is trained at 1


def test_masks_of_a_single_domain_are_one() -> None:
    gradient = torch.tensor([[1.0, -2.0, 0.5]])
    for masked in (SANDMask(tau=0.5).masked(gradient), ANDMask.masked(gradient, 1.0)):
        assert_close(masked, gradient[0])


def test_iga() -> None:
    """Its loss, differentiated as a whole."""
    made = experiment(IGA(penalty=0.7))
    hand = ByHand(made)
    for step in range(4):
        parameters = list(hand.module.parameters())
        losses = [hand.loss(batch_of(step), (d,)) for d in range(3)]
        found = [torch.autograd.grad(loss, parameters, create_graph=True) for loss in losses]
        mean = [sum(by_domain).detach() / 3 for by_domain in zip(*found, strict=True)]
        apart = sum((g - m).square().sum() for one in found for g, m in zip(one, mean, strict=True))
        hand.update([*torch.autograd.grad(sum(losses) / 3 + 0.7 * apart, parameters)])
    state, _ = trained(made)
    check(hand, state)
    assert state.buffers["featurizer.1.num_batches_tracked"] == 12


@pytest.mark.parametrize("test_domains", [1, 2, 3])
def test_mldg_of_domainbed(test_domains: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of domains on copies of the network."""
    orders = [[2, 0, 1], [1, 2, 0], [0, 1, 2], [2, 1, 0]]
    left = iter(orders)
    monkeypatch.setattr("fishr.descents.mldg.random_order", lambda gradients: next(left))
    made = experiment(MLDG(beta=0.6, test_domains=test_domains))
    hand = ByHand(made)
    buffers = [value.clone() for value in hand.module.buffers()]
    for step, order in enumerate(orders):
        total = [torch.zeros_like(p) for p in hand.module.parameters()]
        pairs = {1: [(0, 2), (1, 2)], 2: [(0, 1)], 3: []}[test_domains]
        for i, j in pairs:
            clone = copy.deepcopy(hand)
            clone.optimizer = torch.optim.SGD(clone.module.parameters(), lr=0.3, momentum=0.9)
            first = clone.gradients(batch_of(step), (order[i],))
            clone.update(first)
            second = clone.gradients(batch_of(step), (order[j],))
            total = [t + (g + 0.6 * h) / 3 for t, g, h in zip(total, first, second, strict=True)]
        hand.update(total)
    state, records = trained(made)
    check(hand, state)
    for value, before in zip(hand.module.buffers(), buffers, strict=True):
        assert torch.equal(value, before)
    assert all(len(record.domain_losses) == 3 for record in records)


def test_mldg_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss, differentiated through the inner step."""
    orders = [[2, 0, 1], [1, 2, 0], [0, 1, 2], [2, 1, 0]]
    left = iter(orders)
    monkeypatch.setattr("fishr.descents.mldg.random_order", lambda gradients: next(left))
    made = experiment(MLDG(beta=0.6, test_domains=1, form="paper", inner_lr=0.2))
    hand = ByHand(made)
    for step, order in enumerate(orders):
        parameters = dict(hand.module.named_parameters())
        loss = hand.loss(batch_of(step), tuple(sorted(order[:2])))
        first = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        moved = {name: p - 0.2 * g for (name, p), g in zip(parameters.items(), first, strict=True)}
        other = copy.deepcopy(hand)
        with _reparametrize_module(other.module, moved):
            meta = other.loss(batch_of(step), tuple(order[2:]))
        hand.update([*torch.autograd.grad(loss + 0.6 * meta, list(parameters.values()))])
    state, _ = trained(made)
    check(hand, state)
    assert state.buffers["featurizer.1.num_batches_tracked"] == 4


def flat(gradients: list[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


def shaped(vector: Tensor, like: list[Tensor]) -> list[Tensor]:
    return [part.view_as(g) for part, g in zip(vector.split([g.numel() for g in like]), like, strict=True)]


def test_pcgrad(draws: Any) -> None:
    made, conflicts = experiment(PCGrad()), 0
    hand = ByHand(made)
    for step in range(6):
        found, generator = [hand.gradients(batch_of(step), (d,)) for d in range(3)], draws()
        vectors, total = [flat(one) for one in found], torch.zeros((), dtype=FLOAT64)
        for i, vector in enumerate(vectors):
            own = vector.clone()
            for j in torch.randperm(3, generator=generator).tolist():
                if j != i and own @ vectors[j] < 0:
                    conflicts += 1
                    own = own - (own @ vectors[j]) / (vectors[j] @ vectors[j]) * vectors[j]
            total = total + own / 3
        hand.update(shaped(total, found[0]))
    state, _ = trained(made, 6)
    check(hand, state)
    assert conflicts > 5


def test_gga_l(draws: Any) -> None:
    made = experiment(GGAL(gamma=0.1))
    hand = ByHand(made)
    for step in range(4):
        found, generator = [hand.gradients(batch_of(step), (d,)) for d in range(3)], draws()
        vectors = [flat(one) for one in found]
        cosine = sum(
            nn.functional.cosine_similarity(vectors[i], vectors[j], dim=0) for i, j in [(0, 1), (0, 2), (1, 2)]
        )
        noise = torch.cat([torch.randn(g.shape, generator=generator).flatten() for g in found[0]]).double()
        hand.update(shaped(sum(vectors) / 3 + 0.1 * (1 - cosine / 3) * noise, found[0]))
    state, _ = trained(made)
    check(hand, state)


@pytest.mark.parametrize("descent", [ANDMask(0.0), Fish(1.0)], ids=["one update", "an update a domain"])
def test_a_penalty_that_compares_domains_adds_its_gradient_on_the_whole_batch(descent: Any) -> None:
    """Without moving batch normalization; weights over 1 divide all of the objective."""
    objective = Objective(risk=ERM("domains"), penalty=Total(rex=Scaled(VREx(), 4.0)), l2=0.01, rescale=True)
    made = experiment(descent, objective=objective)
    hand = ByHand(made)

    def spread(batch: Any) -> list[Tensor]:
        other = copy.deepcopy(hand)
        risks = other.risks(batch, (0, 1, 2))
        return [*torch.autograd.grad((risks - risks.mean()).square().mean(), list(other.module.parameters()))]

    for step in range(4):
        batch = batch_of(step)
        if isinstance(descent, Fish):
            for k in range(3):
                pairs = zip(hand.gradients(batch, (k,)), spread(batch), strict=True)
                hand.update([g / 4 + s for g, s in pairs])
        else:
            found = [hand.gradients(batch, (k,)) for k in range(3)]
            hand.update([sum(gs) / 12 + s for *gs, s in zip(*found, spread(batch), strict=True)])
    state, records = trained(made)
    for name, value in hand.numbers().items():
        assert_close((state.parameters | state.buffers)[name], value, atol=1e-9, rtol=1e-9)
    first = records[0]
    assert first.terms["rex"].weight == 4
    assert first.terms["rex"].value > 0
    assert first.loss == pytest.approx((first.risk + first.l2 + first.terms["rex"].value) / 4)
