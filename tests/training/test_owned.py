"""Parameters that a risk trains itself: updates, turns, descents, ranks, files."""

from functools import partial
from itertools import pairwise
from typing import Any

import attrs
import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.func import functional_call

import fishr
from fishr.data import Domain, Domains
from fishr.data.batches import Minibatch
from fishr.descents import SAM, ANDMask
from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.models.featurizers import MLP
from fishr.models.heads import LinearHead
from fishr.observation import observe
from fishr.penalties import Fishr, Scaled, StepSchedule, Total
from fishr.ranks import ALONE, Ranks
from fishr.training import SGD, Adam, Compute, Experiment, Objective, Stepped, advance, train
from fishr.training.explanation import explain_objective
from fishr.training.model import build_model
from fishr.training.owned import Owned, applied
from fishr.types import DomainBatch, Problem

OPTIMIZER = Adam(lr=0.01, weight_decay=0.1)


def critic(features: int, domains: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, domains, bias=False)
    )


@attrs.frozen
class Rival:
    """A critic of domains and the network take turns; the network's are the odd steps."""

    def init(self, problem: Problem) -> Owned:
        return Owned.of(partial(critic, problem.widths("Rival")[0], problem.domains), OPTIMIZER, problem, "critic")

    def __call__(self, seen: Any, state: Owned, step: int) -> tuple[Tensor, Owned]:
        module, leaves = critic(seen.features.shape[1], seen.batch.domains), state.leaves()
        logits = applied(module, leaves, seen.features, seen.generator("rival"))
        value = nn.functional.cross_entropy(logits, seen.domain_ids)
        if step % 2:
            return seen.losses.mean() - value, state
        return value.detach(), state.trained(value, leaves, OPTIMIZER, seen)


@attrs.frozen
class Fixed:
    """An optimizer without a learning rate."""

    def init(self, parameters: Any) -> tuple[()]:
        return ()

    def update(self, gradients: Any, state: Any, parameters: Any) -> Any:
        return parameters, state


def three_domains(seed: int, data_dir: object) -> Domains:
    generator = torch.Generator().manual_seed(seed)

    def domain(index: int) -> Domain:
        inputs = torch.randn(12 + index, 4, generator=generator, dtype=torch.float64).to(torch.get_default_dtype())
        return Domain(f"domain {index}", inputs, torch.randint(3, (12 + index,), generator=generator))

    return Domains(tuple(domain(index) for index in range(3)), (domain(3),), classes=3)


EXPERIMENT = Experiment(
    name="rival",
    data=three_domains,
    featurizer=MLP(widths=(6,)),
    head=LinearHead(),
    loss=CrossEntropy(),
    objective=Objective(risk=Rival(), penalty=Total(fishr=Scaled(Fishr(ema=0.9), 2.0)), l2=0.01),
    optimizer=Adam(lr=0.02),
    batches=Minibatch(8),
    steps=4,
)


def states(experiment: Experiment, ranks: Ranks = ALONE) -> list[Any]:
    return [event.state for event in train(experiment, ranks=ranks) if isinstance(event, fishr.Started | Stepped)]


def test_an_update_is_torchs() -> None:
    problem = Problem.of(nn.Linear(6, 3).double(), domains=2, seed=3)
    state = Owned.of(partial(critic, 6, 2), OPTIMIZER, problem, "critic")
    module = critic(6, 2).double()
    module.load_state_dict(state.parameters | state.buffers)
    oracle = torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(3):
        inputs = torch.randn(7, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        leaves = state.leaves()
        draws = torch.Generator().manual_seed(step)
        value = applied(critic(6, 2), leaves, inputs, draws).square().sum()
        state = state.trained(value, leaves, OPTIMIZER)
        torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(step))))
        oracle.zero_grad()
        module(inputs).square().sum().backward()
        oracle.step()
    for name, expected in module.state_dict().items():
        torch.testing.assert_close((state.parameters | state.buffers)[name], expected, rtol=1e-12, atol=0)


def test_first_values_are_those_of_the_seed_and_the_name() -> None:
    problem = Problem.of(nn.Linear(6, 3), domains=2)

    def first(seed: int, name: str) -> Tensor:
        seeded = attrs.evolve(problem, seed=seed)
        return Owned.of(partial(critic, 6, 2), OPTIMIZER, seeded, name).parameters["0.weight"]

    before = torch.get_rng_state()
    assert torch.equal(first(1, "a"), first(1, "a"))
    assert not torch.equal(first(1, "a"), first(2, "a"))
    assert not torch.equal(first(1, "a"), first(1, "b"))
    assert torch.equal(torch.get_rng_state(), before)


@attrs.frozen
class Decaying:
    """An optimizer of one's own that does something without gradients, too."""

    def init(self, parameters: Any) -> Tensor:
        return torch.zeros(())

    def update(self, gradients: Any, state: Tensor, parameters: Any) -> Any:
        given = zip(parameters, gradients, strict=True)
        return tuple(0.9 * p - 0.01 * (0 if g is None else g) for p, g in given), state + 1


@pytest.mark.parametrize("optimizer", [Adam(lr=0.02, weight_decay=0.1), Decaying()])
def test_the_network_rests_while_the_critic_learns(same: Any, optimizer: Any) -> None:
    found = states(attrs.evolve(EXPERIMENT, optimizer=optimizer))
    for step, (before, after) in enumerate(pairwise(found)):
        network = same(before.parameters, after.parameters), same(before.optimizer, after.optimizer)
        assert network == ((False, False) if step % 2 else (True, True))
        risk_before, risk_after = before.penalty["risk"], after.penalty["risk"]
        assert same(risk_before.parameters, risk_after.parameters) == bool(step % 2)
        assert not same(before.penalty["fishr"], after.penalty["fishr"])


def test_every_precision_and_clipping_lets_the_network_rest(same: Any) -> None:
    half = attrs.evolve(EXPERIMENT, compute=Compute(precision="fp16"), clip_norm=0.1, steps=1)
    first, last = states(half)
    assert same(first.parameters, last.parameters)
    assert last.scale.value == first.scale.value


def test_two_gradients_a_step_train_once(same: Any) -> None:
    plain, twice = (states(attrs.evolve(EXPERIMENT, descent=descent))[-1] for descent in (None, SAM(rho=0.0)))
    assert same(plain.penalty, twice.penalty)
    assert same(plain.parameters, twice.parameters)


def test_a_descent_of_single_domains_is_refused() -> None:
    with pytest.raises(InputError, match=r"got ANDMask, which measures each domain.*trains parameters of its own"):
        next(train(attrs.evolve(EXPERIMENT, objective=Objective(risk=Rival()), descent=ANDMask())))


def test_a_term_of_weight_zero_does_not_train(same: Any) -> None:
    problem = Problem.of(nn.Linear(4, 3), domains=2)
    batch = fishr.DomainBatch(torch.randn(6, 4), torch.tensor([0, 1, 2] * 2), sizes=(3, 3))
    seen = fishr.observe(nn.Identity(), nn.Linear(4, 3), batch, seed=0)
    term = Scaled(Rival(), 0.0)
    before = term.init(problem)
    _, after = term(seen, before, 0)
    assert same(before.parameters, after.parameters)
    assert not same(before.buffers, after.buffers)


def test_a_value_without_a_graph_is_refused() -> None:
    state = Rival().init(Problem.of(nn.Linear(4, 3), domains=2))
    value = functional_call(critic(4, 2), state.parameters | state.buffers, (torch.ones(4, 4),)).mean()
    with pytest.raises(InputError, match="trained: got a value without a graph"):
        state.trained(value.detach(), state.leaves(), OPTIMIZER)


@pytest.mark.parametrize("factor", [0.0, 0.3])
def test_its_learning_rate_follows_the_schedule(factor: float, same: Any) -> None:
    scheduled = attrs.evolve(EXPERIMENT, lr_schedule=StepSchedule(at=1, before=1.0, after=factor))
    (_, first, second, third, _), (_, plain, *_) = states(scheduled), states(EXPERIMENT)
    assert same(first.penalty["risk"], plain.penalty["risk"])
    found = third.penalty["risk"]
    if factor == 0:
        assert same(found.parameters, first.penalty["risk"].parameters)
        assert found.memory.steps[0] == 2
        return
    # The third step again, with that rate in the critic's optimizer.
    domains = three_domains(0, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "OPTIMIZER", attrs.evolve(OPTIMIZER, lr=OPTIMIZER.lr * factor))
        by_hand, _ = advance(build_model(EXPERIMENT, domains), EXPERIMENT, second, domains.training)
    assert same(found, by_hand.penalty["risk"])


def test_an_optimizer_without_a_rate_follows_no_schedule() -> None:
    state = Rival().init(Problem.of(nn.Linear(4, 3), domains=2))
    leaves, batch = state.leaves(), DomainBatch(torch.ones(3, 4), torch.zeros(3).long(), (3,))
    value = functional_call(critic(4, 2), leaves, (torch.ones(4, 4),)).mean()
    for factor, refused in ((1.0, False), (0.5, True)):
        seen = observe(nn.Identity(), nn.Linear(4, 3), batch, lr_factor=factor)
        if refused:
            with pytest.raises(InputError, match=r"^lr_schedule: got one for Fixed, which has no number lr"):
                state.trained(value, leaves, Fixed(), seen)
        else:
            state.trained(value, leaves, Fixed(), seen)


def test_unknown_widths_are_refused() -> None:
    problem = Problem.of(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), domains=2)
    with pytest.raises(InputError, match=r"Rival: got a problem of unknown width.*features=\.\.\., outputs=\.\.\."):
        Rival().init(problem)


def test_a_saved_state_comes_back(same: Any) -> None:
    problem = Problem.of(nn.Linear(4, 3), domains=2, seed=4)
    state = Rival().init(problem)
    again = fishr.load_state(Rival(), attrs.evolve(problem, seed=0), fishr.state_dict(state, flat=True))
    assert isinstance(again, Owned)
    assert same(state, again)


def follow(ranks: Ranks) -> Any:
    torch.set_default_dtype(torch.float64)
    return states(EXPERIMENT, ranks)[-1]


@pytest.mark.slow
def test_two_ranks_train_what_one_process_trains() -> None:
    one, two = on_ranks(1, follow)[0], on_ranks(2, follow)
    for state in two:
        for found, expected in (
            (state.parameters, one.parameters),
            *(
                (getattr(state.penalty["risk"], part), getattr(one.penalty["risk"], part))
                for part in ("parameters", "buffers")
            ),
        ):
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11)


def summed(ranks: Ranks) -> Any:
    state = Owned.of(partial(nn.Linear, 2, 1), SGD(lr=1.0), Problem.of(nn.Linear(2, 3), domains=1), "sum")
    leaves = state.leaves()
    inputs = torch.full((3, 2), 1.0 + ranks.number)
    value = fishr.sum_over_ranks(applied(nn.Linear(2, 1), leaves, inputs).sum(), ranks)
    seen = observe(nn.Identity(), nn.Linear(2, 3), DomainBatch(inputs, torch.zeros(3).long(), (3,)), ranks=ranks)
    return state.parameters["weight"] - state.trained(value, leaves, SGD(lr=1.0), seen).parameters["weight"]


@pytest.mark.slow
def test_the_gradient_of_a_sum_over_ranks_is_that_of_all_samples() -> None:
    for gradient in on_ranks(2, summed):
        torch.testing.assert_close(gradient, torch.full((1, 2), 9.0))


def test_an_explanation_names_a_risk_with_a_memory() -> None:
    found = str(explain_objective(EXPERIMENT))
    # 60 weights of the critic, two moments of each, and 11 numbers of batch normalization.
    assert found.splitlines()[1] == "risk: Rival(), 191 numbers remembered"
