"""SelfReg and TRM, penalties with modules of their own: slow loops in float64, ranks, resumed runs."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from cases import EXACT, FLOAT64, derivatives
from cut_runs import resumed
from ranks import on_ranks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from fishr.configuration import dumps
from fishr.data import Minibatch
from fishr.errors import InputError
from fishr.inference import load_model
from fishr.losses import CrossEntropy
from fishr.methods import TRM, SelfReg
from fishr.methods.selfreg import draws_of
from fishr.models import MLP
from fishr.observation import Observation, observe
from fishr.penalties import Scaled, Total
from fishr.protocols import colored_digits
from fishr.ranks import ALONE, Ranks, mean_over_ranks
from fishr.training import Adam, Experiment, Objective, run
from fishr.types import DomainBatch, Problem

# The domain of each of 11 samples, of 4; the last has none. On two ranks, the second has the samples after the 5th.
IDS = [0, 0, 0, 2, 2, 0, 1, 1, 1, 2, 2]


class Model:
    def __init__(
        self, rows: slice = slice(None), ids: list[int] = IDS, ranks: Ranks = ALONE, sure: bool = False
    ) -> None:
        draws = torch.Generator().manual_seed(1)
        self.featurizer, self.head = nn.Linear(3, 4).double(), nn.Linear(4, 3).double()
        for parameter in (*self.featurizer.parameters(), *self.head.parameters()):
            parameter.data = torch.randn(parameter.shape, dtype=FLOAT64, generator=draws)
        inputs = torch.randn(len(ids), 3, dtype=FLOAT64, generator=draws)
        labels = torch.randint(3, (len(ids),), generator=draws)
        if sure:
            labels = self.head(self.featurizer(inputs)).argmax(1)
        batch = DomainBatch.of(inputs[rows], labels[rows], torch.tensor(ids)[rows], number=4)
        self.seen: Observation = observe(self.featurizer, self.head, batch, ranks=ranks, seed=7)
        self.problem = Problem.of(self.head, 4, seed=3)

    def derivatives(self, value: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in derivatives(value, self.featurizer, self.head)])


def by_projector(parameters: dict[str, Tensor], features: Tensor) -> Tensor:
    found = features
    for layer in (0, 3, 6):
        found = found @ parameters[f"{layer}.weight"].T + parameters[f"{layer}.bias"]
        center = found - found.mean(0)
        found = center / (center.square().mean(0) + 1e-5).sqrt()
        found = found * parameters[f"{layer + 1}.weight"] + parameters[f"{layer + 1}.bias"]
        found = found.clamp(min=0) if layer < 6 else found
    return found


def selfreg(seen: Observation, parameters: dict[str, Tensor]) -> Tensor:
    share, first, second = draws_of(seen)
    logits, features = seen.logits, seen.features
    projected, total = by_projector(parameters, features), torch.zeros((), dtype=FLOAT64)
    for i, (j, k) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        for factor, mixed in (
            (share, lambda rows, j=j: rows[j]),
            (1 - share, lambda rows, j=j, k=k: share * rows[j] + (1 - share) * rows[k]),
        ):
            total = total + factor * (logits[i] - mixed(logits)).square().sum() / logits.numel()
            total = total + factor * 0.3 * (features[i] - mixed(projected)).square().sum() / features.numel()
    return min(cross_entropy(logits, seen.labels).item(), 1.0) * total


@pytest.mark.parametrize("form", ["domainbed", "paper"])
def test_selfreg_is_its_formula(form: Any) -> None:
    # A mean loss above 1, and one below.
    model, penalty = Model(sure=form == "paper"), SelfReg(form, lr=0.01)
    assert (model.seen.losses.mean() < 1) == (form == "paper")
    state = penalty.init(model.problem)
    value, after = penalty(model.seen, state, 0)
    own = {name: p.clone().requires_grad_() for name, p in state.parameters.items()}
    expected = selfreg(model.seen, own)
    assert_close(value, expected, **EXACT)
    assert_close(model.derivatives(value), model.derivatives(expected), **EXACT)
    if form == "domainbed":
        assert after is state
        return
    optimizer = torch.optim.Adam(own.values(), lr=0.01)
    for parameter, gradient in zip(own.values(), torch.autograd.grad(expected, [*own.values()]), strict=True):
        parameter.grad = gradient
    optimizer.step()
    for name, parameter in own.items():
        # Biases before batch normalization have a gradient of rounding alone, which Adam divides by itself.
        if name not in ("0.bias", "3.bias", "6.bias"):
            assert_close(after.parameters[name], parameter.detach(), atol=1e-6, rtol=0)


def test_partners_are_of_the_class_and_drawn_at_random() -> None:
    seen, labels = Model().seen, Model().seen.labels
    shares, partners = list[float](), set[tuple[int, ...]]()
    for seed in range(300):
        share, first, second = draws_of(attrs.evolve(seen, seed=seed))
        for found in (first, second):
            assert torch.equal(labels[found], labels)
            assert sorted(found.tolist()) == list(range(11))
        shares.append(share)
        partners.update({tuple(first.tolist()), tuple(second.tolist())})
    assert len(partners) > 200
    # Beta(1/2, 1/2) has the mean 1/2 and the variance 1/8.
    assert abs(sum(shares) / 300 - 0.5) < 0.08
    assert abs(sum((share - 0.5) ** 2 for share in shares) / 300 - 0.125) < 0.02


def by_hand(model: Model, penalty: TRM, state: Any) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Tensor]:
    """TRM of domains 0, 1 and 2: the value, their heads and the next weights."""
    domains = [(z, y) for z, y in model.seen.domain_samples]
    heads, shares = list[tuple[Tensor, Tensor]](), state["weights"][:3, :3] / state["weights"][:3, :3].sum(1, True)
    after, total = state["weights"].clone(), torch.zeros((), dtype=FLOAT64)
    for k, (features, labels) in enumerate(domains):
        head = nn.Linear(4, 3).double()
        head.load_state_dict({name: state["heads"].parameters[f"{k}.{name}"] for name in ("weight", "bias")})
        optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
        for _ in range(30):
            optimizer.zero_grad()
            cross_entropy(head(features.detach()), labels).backward()
            optimizer.step()
        heads.append((head.weight.detach(), head.bias.detach()))
    for q in range(3):
        weight, bias = heads[q]
        weight = weight.clone().requires_grad_()

        def risk(p: int, weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
            return cross_entropy(domains[p][0] @ weight.T + bias, domains[p][1])

        others = [p for p in range(3) if p != q]
        transfer = sum(shares[q, p] * risk(p) for p in others)
        (slope,) = torch.autograd.grad(transfer, weight, retain_graph=True)
        hessian = torch.autograd.functional.hessian(lambda w, q=q, risk=risk: risk(q, w), weight).view(12, 12).detach()
        step = torch.eye(12, dtype=FLOAT64) - hessian
        powers = [torch.linalg.matrix_power(step, i) @ slope.flatten() for i in range(11)]
        if penalty.form == "domainbed":
            powers[0] = powers[1]
        (own,) = torch.autograd.grad(risk(q), weight, create_graph=True)
        if penalty.form == "domainbed":
            # Its value is that of the weights before, its gradient that of the weights after.
            factors = {p: shares[q, p] * (penalty.eta * shares[q, p] * risk(p).detach()).exp() for p in others}
            transfer = transfer.detach() + sum(factors[p] * (risk(p) - risk(p).detach()) for p in others)
        total = total + (transfer - penalty.cos_lambda * (sum(powers) * own.flatten()).sum()) / 3
        for p in others:
            grown = shares[q, p] * (penalty.eta * shares[q, p] * risk(p).detach()).exp()
            after[q, p] = grown * state["weights"][q, :3].sum()
    return total, heads, after


@pytest.mark.parametrize("form", ["domainbed", "paper"])
def test_trm_is_its_formula(form: Any) -> None:
    model, penalty = Model(), TRM(cos_lambda=0.3, eta=0.5, form=form)
    state = penalty.init(model.problem)
    state["weights"] = state["weights"] * torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=FLOAT64)
    value, after = penalty(model.seen, state, 0)
    expected, heads, weights = by_hand(model, penalty, state)
    assert_close(value, expected, **EXACT)
    assert_close(model.derivatives(value), model.derivatives(expected), **EXACT)
    assert_close(after["weights"], weights, **EXACT)
    for k, (weight, bias) in enumerate(heads):
        assert_close(after["heads"].parameters[f"{k}.weight"], weight, **EXACT)
        assert_close(after["heads"].parameters[f"{k}.bias"], bias, **EXACT)
    # The head and the weights of the missing domain stay.
    assert torch.equal(after["heads"].parameters["3.weight"], state["heads"].parameters["3.weight"])
    assert torch.equal(after["weights"][3], state["weights"][3])
    assert torch.equal(after["weights"][:, 3], state["weights"][:, 3])


def test_a_series_that_diverges_is_cut() -> None:
    model = Model()
    with torch.no_grad():
        model.featurizer.weight *= 100
    penalty = TRM(cos_lambda=1.0)
    value, _ = penalty(model.seen, penalty.init(model.problem), 0)
    assert value.isfinite()
    # 2 (I − H) v has an entry above 10 already, and is not multiplied by I − H again.
    leaf = torch.tensor([3.0], dtype=FLOAT64, requires_grad=True)
    (slope,) = torch.autograd.grad(-leaf.square().sum() * 3, leaf, create_graph=True)
    assert penalty._solved(torch.tensor([1.0], dtype=FLOAT64), slope, leaf).item() == 14.0


def test_before_the_start_and_at_weight_zero_the_heads_rest() -> None:
    model, problem = Model(), Model().problem
    for penalty in (TRM(start=5), Scaled(TRM(), 0.0)):
        state = penalty.init(problem)
        value, after = penalty(model.seen, state, 4)
        assert value == 0
        assert not value.requires_grad
        assert torch.equal(after["heads"].parameters["0.weight"], state["heads"].parameters["0.weight"])


def on_both(ranks: Ranks) -> list[Tensor]:
    rows = slice(None) if ranks.alone else [slice(0, 5), slice(5, None)][ranks.number]
    model, found = Model(rows, ranks=ranks), list[Tensor]()
    for penalty in (SelfReg("paper", lr=0.01), TRM(0.3, eta=0.5, form="paper")):
        value, state = penalty(model.seen, penalty.init(model.problem), 0)
        (gradient,) = mean_over_ranks([model.derivatives(value)], ranks)
        assert gradient is not None
        owned = state["heads"] if isinstance(state, dict) else state
        found += [value.detach(), gradient, owned.parameters["0.weight"]]
    return found


@pytest.mark.slow
def test_two_ranks_are_one() -> None:
    expected = on_both(ALONE)
    for found in on_ranks(2, on_both):
        assert_close(found, expected, atol=1e-9, rtol=1e-9)


def digits(**terms: Any) -> Experiment:
    parts: dict[str, Any] = {
        "featurizer": MLP((6,)),
        "loss": CrossEntropy(),
        "objective": Objective(penalty=Total(**terms)),
        "optimizer": Adam(lr=0.01),
        "batches": Minibatch(8),
        "steps": 4,
        "checkpoint_every": 2,
    }
    return attrs.evolve(colored_digits("erm"), **parts)


@pytest.mark.parametrize(
    "penalty", [SelfReg("paper", lr=0.01), SelfReg(), TRM(0.1, start=1)], ids=["paper", "selfreg", "trm"]
)
def test_a_run_resumes_to_the_same_bits(penalty: Any, tmp_path: Path, same: Any) -> None:
    made = digits(own=penalty)
    *_, whole = run(made, tmp_path / "whole", experiment_text=dumps(made))
    last = resumed(made, tmp_path / "cut", dumps(made))
    assert same(last.state, whole.state)  # type: ignore[union-attr]
    names = dict(load_model(tmp_path / "whole").named_parameters())
    assert sorted(names) == ["featurizer.1.bias", "featurizer.1.weight", "head.bias", "head.weight"]


@pytest.mark.parametrize(("made", "message"), [
    (lambda: SelfReg("paper", lr=0.0), "lr: got 0"),
    (lambda: SelfReg("other"), "form: got 'other'"),  # type: ignore[arg-type]
    (lambda: TRM(cos_lambda=-1.0), "cos_lambda: got -1"),
    (lambda: TRM().init(Problem.of(nn.Linear(3, 2), 1)), "TRM: got 1 training domain, expected at least 2"),
    (lambda: TRM()(Model(ids=[1] * 11).seen, TRM().init(Model().problem), 0), "TRM: got a batch with samples of 1 of"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(made: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made()
