"""The pure step: what it computes, and what it leaves alone."""

import attrs
import pytest
import torch

from fishr.data.batches import Minibatch
from fishr.errors import InputError, RunFailed
from fishr.models.featurizers import MLP
from fishr.models.heads import LinearHead
from fishr.observation import observe
from fishr.penalties import Fishr, Scaled, StepSchedule, Total, VREx
from fishr.training.compute import Compute
from fishr.training.model import Model, build_model
from fishr.training.objective import Objective
from fishr.training.optimizers import Adam
from fishr.training.sgd import SGD
from fishr.training.state import first_state, initial_state
from fishr.training.step import NotFinite, advance
from fishr.types import Problem


def _start(experiment):
    domains = experiment.data(experiment.seed, None)
    model = build_model(experiment, domains)
    return domains, model, first_state(experiment, model, len(domains.training))


def test_the_state_given_stays_as_it_was(experiment, same):
    domains, model, state = _start(experiment)
    for _ in range(experiment.steps):
        copy = attrs.evolve(
            state,
            parameters={name: p.clone() for name, p in state.parameters.items()},
            buffers={name: b.clone() for name, b in state.buffers.items()},
            optimizer=attrs.evolve(
                state.optimizer,
                moments={n: tuple(t.clone() for t in ts) for n, ts in state.optimizer.moments.items()},
            ),
            generator=state.generator.clone(),
        )
        after, _ = advance(model, experiment, state, domains.training)
        assert same(state, copy)
        assert not same(after.parameters, state.parameters)
        assert all(p.grad is None for p in model.parameters().values())
        state = after


def test_a_step_depends_on_its_state_alone(experiment, same):
    """Neither what the workspace held before nor torch's global generator matters, and the latter is not moved."""
    domains, model, first = _start(experiment)
    states = [first]
    for _ in range(3):
        states.append(advance(model, experiment, states[-1], domains.training)[0])
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again, _ = advance(build_model(experiment, domains), experiment, states[1], domains.training)
    assert torch.equal(before, torch.get_rng_state())
    assert same(again, states[2])
    advance(model, experiment, states[0], domains.training)
    assert same(advance(model, experiment, states[2], domains.training)[0], states[3])


def test_steps_draw_different_noise(everything):
    """Same weights, next generator: dropout and batches differ from step to step."""
    domains, model, state = _start(everything)
    after, first = advance(model, everything, state, domains.training)
    _, second = advance(model, everything, attrs.evolve(state, generator=after.generator), domains.training)
    assert first.risk != second.risk


@pytest.mark.parametrize("optimizer", [Adam(lr=0.01), SGD(lr=0.1, momentum=0.9)], ids=["adam", "sgd"])
def test_a_loop_by_hand_gives_the_same_weights(plain, optimizer):
    """Module, torch.optim and loss.backward() of the formula; the order of float32 sums may differ."""
    penalty = Total(rex=Scaled(VREx(form="pairwise"), 30.0))
    objective = attrs.evolve(plain.objective, penalty=penalty)
    experiment = attrs.evolve(plain, objective=objective, optimizer=optimizer)
    domains, model, state = _start(experiment)

    workspace = build_model(experiment, domains)
    module = torch.nn.ModuleDict({"featurizer": workspace.featurizer, "head": workspace.head})
    torch_optimizer = (
        torch.optim.Adam(module.parameters(), lr=0.01)
        if isinstance(optimizer, Adam)
        else torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    )
    batch = experiment.batches.draw(domains.training, torch.Generator())
    for _ in range(20):
        state, _ = advance(model, experiment, state, batch)
        logits = module["head"](module["featurizer"](batch.inputs))
        first, second = experiment.loss(logits, batch.labels).split(batch.sizes)
        risk = torch.stack([first.mean(), second.mean()]).mean()
        l2 = 0.001 * torch.stack([p.square().sum() for p in module.parameters()]).sum()
        loss = (risk + l2 + 30.0 * (first.mean() - second.mean()) ** 2) / 30.0
        torch_optimizer.zero_grad()
        loss.backward()
        torch_optimizer.step()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(state.parameters[name], parameter.detach(), rtol=0, atol=2e-6)


def test_the_usual_loop_gives_the_same_bits(plain, same):
    """The user's own loop on the same observation: torch.optim.Adam and loss.backward(), bit for bit."""
    fishr = Scaled(Fishr(ema=0.9), StepSchedule(at=3, before=1.0, after=9000.0))
    plain = attrs.evolve(plain, objective=attrs.evolve(plain.objective, penalty=Total(fishr=fishr)))
    domains, model, state = _start(plain)
    own = build_model(plain, domains)
    parameters = list(own.parameters().values())
    torch_optimizer = torch.optim.Adam(parameters, lr=0.01)
    batch = plain.batches.draw(domains.training, torch.Generator())
    memory = plain.objective.penalty.init(Problem.of(own.head, domains=2))
    for step in range(20):
        state, _ = advance(model, plain, state, batch)
        seen = observe(own.featurizer, own.head, batch, plain.loss)
        terms, memory = plain.objective.penalty.evaluate(seen, memory, step)
        l2 = 0.001 * torch.stack([p.square().sum() for p in parameters]).sum()
        loss = (seen.domain_losses.mean() + l2 + terms["fishr"].value) / (1.0 if step < 3 else 9000.0)
        torch_optimizer.zero_grad()
        loss.backward()
        torch_optimizer.step()
        for name, parameter in own.parameters().items():
            assert torch.equal(state.parameters[name], parameter.detach()), (step, name)
        assert same(state.penalty, memory)
        assert state.penalty["fishr"].updates == step + 1


def test_a_fresh_optimizer_begins_at_its_step(plain, same):
    experiment = attrs.evolve(plain, objective=attrs.evolve(plain.objective, fresh_optimizer_at=2))
    domains, model, state = _start(experiment)
    for _ in range(2):
        state, _ = advance(model, experiment, state, domains.training)
    assert set(state.optimizer.steps) == {2}
    after, _ = advance(model, experiment, state, domains.training)
    assert set(after.optimizer.steps) == {1}
    kept, _ = advance(model, plain, state, domains.training)
    assert set(kept.optimizer.steps) == {3}
    assert not same(kept.parameters, after.parameters)


@attrs.frozen
class Frozen:
    inner: object

    def __call__(self, *arguments):
        return self.inner(*arguments).requires_grad_(False)

    def features(self, shape):
        return self.inner.features(shape)


def test_a_frozen_featurizer_stays(plain, same):
    experiment = attrs.evolve(plain, featurizer=Frozen(MLP(widths=(6,))))
    domains, model, state = _start(experiment)
    after, record = advance(model, experiment, state, domains.training)
    assert record.terms["fishr"].value > 0
    for name in state.parameters:
        assert same(state.parameters[name], after.parameters[name]) == name.startswith("featurizer.")


def test_a_frozen_head_stays(plain, same):
    objective = Objective(penalty=Total(rex=Scaled(VREx(), 1.0)))
    experiment = attrs.evolve(plain, head=Frozen(LinearHead()), objective=objective)
    domains, model, state = _start(experiment)
    after, _ = advance(model, experiment, state, domains.training)
    for name in state.parameters:
        assert same(state.parameters[name], after.parameters[name]) == name.startswith("head.")


def test_nothing_to_train_is_refused(plain):
    experiment = attrs.evolve(plain, featurizer=Frozen(MLP(widths=(6,))), head=Frozen(LinearHead()))
    with pytest.raises(InputError, match="no parameter that requires grad"):
        initial_state(experiment, experiment.data(0, None))


class Unused(torch.nn.Sequential):
    def __init__(self, *layers):
        super().__init__(*layers)
        self.spare = torch.nn.Parameter(torch.ones(3))


def test_a_parameter_outside_the_loss_stays(plain, same):
    experiment = attrs.evolve(plain, objective=attrs.evolve(plain.objective, l2=0.0))
    domains, built, _ = _start(experiment)
    model = Model(Unused(*built.featurizer), built.head)
    state = first_state(experiment, model, domains=2)
    after, _ = advance(model, experiment, state, domains.training)
    assert same(after.parameters["featurizer.spare"], torch.ones(3))
    assert sorted(after.optimizer.steps) == [0, 1, 1, 1, 1, 1, 1]


@attrs.frozen
class Broken:
    """A penalty of one's own that goes wrong."""

    value: float = 0.0
    keeps_graph: bool = False

    def init(self, problem):
        return torch.zeros(())

    def __call__(self, seen, state, step):
        losses = seen.domain_losses.mean()
        return losses * self.value, losses if self.keeps_graph else state


@pytest.mark.parametrize(
    ("changes", "term"),
    [
        ({"penalty": Total(mine=Scaled(Broken(value=float("nan")), 1.0), other=Scaled(VREx(), 1.0))}, "mine"),
        ({"penalty": Total(rex=Scaled(VREx(), 1.0), mine=Scaled(Broken(value=float("inf")), 1.0))}, "mine"),
        ({"penalty": Total(), "l2": 1e308}, "l2"),
    ],
)
def test_the_first_term_that_is_not_finite_is_named(plain, changes, term):
    experiment = attrs.evolve(plain, objective=attrs.evolve(plain.objective, **changes))
    domains, model, state = _start(experiment)
    with pytest.raises(NotFinite, match=f"step 0: {term} is (nan|inf), .*; check the inputs") as caught:
        advance(model, experiment, state, domains.training)
    assert isinstance(caught.value, RunFailed)
    assert (caught.value.step, caught.value.term) == (0, term)
    assert "\n" not in str(caught.value)


def test_a_risk_that_is_not_finite_is_named(plain):
    domains, model, state = _start(plain)
    bad = attrs.evolve(state, step=4, parameters=state.parameters | {"head.bias": torch.tensor([float("nan")])})
    with pytest.raises(NotFinite) as caught:
        advance(model, plain, bad, domains.training)
    assert (caught.value.step, caught.value.term) == (4, "risk")


def test_a_penalty_state_with_a_graph_is_refused(plain):
    mine = Total(mine=Scaled(Broken(value=1.0, keeps_graph=True), 1.0))
    experiment = attrs.evolve(plain, objective=attrs.evolve(plain.objective, penalty=mine))
    domains, model, state = _start(experiment)
    with pytest.raises(InputError, match=r"penalty state mine: .*detach"):
        advance(model, experiment, state, domains.training)


@attrs.frozen
class Trained:
    """A penalty of one's own whose state is a network, from the start or from the second step on."""

    late: bool = False

    def init(self, problem):
        return {"net": () if self.late else torch.nn.Linear(2, 1)}

    def __call__(self, seen, state, step):
        return seen.logits.square().mean(), {"net": torch.nn.Linear(2, 1)}


def test_a_penalty_state_that_no_checkpoint_could_hold_is_refused(plain):
    def start(late):
        mine = Total(mine=Scaled(Trained(late), 1.0))
        experiment = attrs.evolve(plain, objective=attrs.evolve(plain.objective, penalty=mine))
        return experiment, *_start(experiment)

    message = r"penalty state mine\.net: got a Linear, expected a tree of tensors"
    with pytest.raises(InputError, match=message):
        start(late=False)
    experiment, domains, model, state = start(late=True)
    with pytest.raises(InputError, match=message):
        advance(model, experiment, state, domains.training)


def test_bfloat16_runs_the_featurizer_alone_in_low_precision(plain):
    exact, rough = [], []
    for precision, values in (("fp32", exact), ("bf16", rough)):
        experiment = attrs.evolve(plain, compute=Compute(precision=precision))
        domains, model, state = _start(experiment)
        types = {}
        for name, module in (("featurizer", model.featurizer), ("head", model.head)):
            module.register_forward_hook(lambda *call, name=name, seen=types: seen.update({name: call[2].dtype}))
        after, record = advance(model, experiment, state, domains.training)
        expected = torch.bfloat16 if precision == "bf16" else torch.float32
        assert types == {"featurizer": expected, "head": torch.float32}
        assert {p.dtype for p in after.parameters.values()} == {torch.float32}
        values.append(record.risk)
    assert exact[0] != rough[0]
    assert exact[0] == pytest.approx(rough[0], rel=0.02)


def test_a_state_of_another_model_is_refused(plain):
    domains, _, state = _start(plain)
    other = attrs.evolve(plain, featurizer=MLP(widths=(7, 5)))
    with pytest.raises(InputError, match=r"parameter featurizer.3.weight: got shape \(6, 7\).*\(5, 7\)"):
        advance(build_model(other, domains), other, state, domains.training)
    other = attrs.evolve(plain, featurizer=MLP(widths=(7,)))
    with pytest.raises(InputError, match="parameter "):
        advance(build_model(other, domains), other, state, domains.training)


def test_seeds_decide_weights_and_batches(plain, same):
    def run(seed):
        experiment = attrs.evolve(plain, batches=Minibatch(size=3))
        domains = experiment.data(0, None)
        state = initial_state(attrs.evolve(experiment, seed=seed), domains)
        return state.parameters, state.generator

    assert same(run(1), run(1))
    assert not same(run(1)[0], run(2)[0])
    assert not same(run(1)[1], run(2)[1])
