"""The head at one moment: each number against its definition, one sample at a time, in float64."""

import attrs
import pytest
import torch
from torch.func import functional_call

from fishr.data.batches import FullBatch
from fishr.landscape import random_directions
from fishr.models.heads import LinearHead, MLPHead
from fishr.observation import observe
from fishr.penalties import IRM, Fishr, Scaled, StepSchedule, Total, VREx
from fishr.tensor_trees import named_tensors
from fishr.training.artifacts import Recording
from fishr.training.head_statistics import head_statistics
from fishr.training.loop import Stepped, train
from fishr.training.model import build_model
from fishr.training.objective import Objective


def _after(experiment, steps):
    events = [event for event in train(attrs.evolve(experiment, steps=steps)) if isinstance(event, Stepped)]
    domains = experiment.data(experiment.seed, None)
    return build_model(experiment, domains), events[-1].state, domains.training


def _oracle(experiment, state, domains, samples):
    """Gradient and Hessian of each sample's loss by the head's weights, from a model of its own."""
    model = build_model(experiment, experiment.data(experiment.seed, None))
    both = model.both()
    both.load_state_dict(state.parameters | state.buffers)
    both.double().eval()
    named = {name: p.detach() for name, p in model.head.named_parameters()}
    flat = torch.cat([p.flatten() for p in named.values()])

    def loss(vector, features, label):
        parts = vector.split([p.numel() for p in named.values()])
        weights = {name: part.view(p.shape) for (name, p), part in zip(named.items(), parts, strict=True)}
        logits = functional_call(model.head, weights, (features.unsqueeze(0),))
        return experiment.loss(logits, label.unsqueeze(0))[0]

    rows = []
    for domain in domains:
        features = both["featurizer"](domain.inputs[:samples].double()).detach()
        labels = domain.labels[:samples]
        pairs = list(zip(features, labels, strict=True))
        gradients = torch.stack([torch.func.grad(loss)(flat, z, y) for z, y in pairs])
        hessians = torch.stack([torch.func.jacrev(torch.func.grad(loss))(flat, z, y).diagonal() for z, y in pairs])
        losses = torch.stack([loss(flat, z, y) for z, y in pairs])
        right = experiment.loss.predictions(model.head(features)) == labels
        rows.append(
            (losses.mean(), right.double().mean(), gradients.mean(0), gradients.var(0, correction=0), hessians.mean(0))
        )
    return flat, *map(torch.stack, zip(*rows, strict=True))


def test_every_number_is_its_definition(experiment):
    """Also with dropout and batch normalization, which are in eval mode."""
    model, state, domains = _after(experiment, 5)
    moment = head_statistics(model, experiment, state, domains, Recording(every=1, samples=20))
    weights, risks, accuracies, mean, variance, hessian = _oracle(experiment, state, domains, 20)
    close = {"rtol": 1e-4, "atol": 1e-6, "check_dtype": False}
    torch.testing.assert_close(moment["weights"], weights, **close)
    torch.testing.assert_close(moment["risks"], risks, **close)
    torch.testing.assert_close(moment["accuracies"], accuracies, **close)
    torch.testing.assert_close(moment["mean"], mean, **close)
    torch.testing.assert_close(moment["variance"], variance, **close)
    torch.testing.assert_close(moment["hessian_diagonal"], hessian, **close)

    def scale_free(statistic):
        middle = statistic.mean(0)
        return ((statistic - middle) ** 2).sum() / len(statistic) / (middle**2).sum()

    torch.testing.assert_close(
        moment["variance_distance_scale_free"], scale_free(variance), rtol=1e-3, atol=0, check_dtype=False
    )
    torch.testing.assert_close(
        moment["hessian_distance_scale_free"], scale_free(hessian), rtol=1e-3, atol=0, check_dtype=False
    )


def test_a_head_of_several_layers(plain):
    experiment = attrs.evolve(plain, head=MLPHead((4,)))
    model, state, domains = _after(experiment, 3)
    moment = head_statistics(model, experiment, state, domains, Recording(every=1, samples=15))
    _, _, _, mean, variance, hessian = _oracle(experiment, state, domains, 15)
    torch.testing.assert_close(moment["mean"], mean, rtol=1e-3, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(moment["variance"], variance, rtol=1e-3, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(moment["hessian_diagonal"], hessian, rtol=1e-3, atol=1e-6, check_dtype=False)


def test_a_head_with_dropout_is_in_eval_mode(plain):
    @attrs.frozen
    class Dropping:
        def __call__(self, features, outputs, generator):
            return torch.nn.Sequential(torch.nn.Dropout(0.9), LinearHead()(features, outputs, generator))

    experiment = attrs.evolve(plain, head=Dropping(), objective=Objective())
    model, state, domains = _after(experiment, 3)
    moment = head_statistics(model, experiment, state, domains, Recording(every=1, samples=15))
    _, risks, _, mean, *_ = _oracle(experiment, state, domains, 15)
    torch.testing.assert_close(moment["risks"], risks, rtol=1e-4, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(moment["mean"], mean, rtol=1e-4, atol=1e-6, check_dtype=False)


def test_penalties_are_without_their_weights(plain):
    """Nested, zero, and with a memory: the value is the penalty's on these rows, after what it remembers."""
    terms = {
        "fishr": Scaled(Fishr(ema=0.9), StepSchedule(at=100, before=0.0, after=50.0)),
        "rex": Scaled(Scaled(VREx(), 3.0), 5.0),
        "irm": IRM(),
    }
    experiment = attrs.evolve(plain, objective=Objective(penalty=Total(**terms)))
    model, state, domains = _after(experiment, 4)
    moment = head_statistics(model, experiment, state, domains, Recording(every=1))
    batch = FullBatch().draw(domains, torch.Generator())
    other = build_model(experiment, experiment.data(0, None))
    other.both().load_state_dict(state.parameters)
    seen = observe(other.featurizer, other.head, batch, experiment.loss)
    plain_terms = {"fishr": Fishr(ema=0.9), "rex": VREx(), "irm": IRM()}
    for name, penalty in plain_terms.items():
        value = float(penalty(seen, state.penalty[name], 4)[0].detach())
        assert float(moment["penalties"][name]) == pytest.approx(value, rel=1e-4), name
        assert value > 0
        assert not moment["penalties"][name].requires_grad


def test_it_changes_nothing(experiment, bits):
    model, state, domains = _after(experiment, 2)
    before, modes = bits(state), [module.training for module in model.both().modules()]
    generator = torch.get_rng_state()
    moment = head_statistics(model, experiment, state, domains, Recording(every=1))
    assert bits(state) == before
    assert [module.training for module in model.both().modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(tensor.requires_grad for _, tensor in named_tensors(moment))
    again = head_statistics(model, experiment, state, domains, Recording(every=1))
    assert bits(again) == bits(moment)


def test_inconsistency_grows_with_epsilon_and_is_zero_between_equal_domains(plain):
    model, state, domains = _after(plain, 7)
    values = [
        float(head_statistics(model, plain, state, domains, Recording(every=1, epsilon=epsilon))["inconsistency"])
        for epsilon in (0.0, 0.05, 10.0)
    ]
    risks = head_statistics(model, plain, state, domains, Recording(every=1))["risks"]
    # With ε = 0 the region is the point itself.
    assert values[0] == pytest.approx(float((risks[0] - risks[1]).abs()), rel=1e-5)
    assert values == sorted(values)
    assert values[2] > values[1] > 0
    twins = (domains[0], domains[0])
    alike = head_statistics(model, plain, state, twins, Recording(every=1, epsilon=0.05))
    assert float(alike["inconsistency"]) <= 0.05
    assert float(alike["variance_distance_scale_free"]) == float(alike["hessian_distance_scale_free"]) == 0


@pytest.mark.parametrize("head", [LinearHead(), MLPHead((4,))])
@pytest.mark.parametrize("steps", [1, 6])
def test_inconsistency_is_on_the_same_plane_at_every_moment(plain, head, steps):
    """With an ε beyond all risks the region is the whole grid: the largest distance from another domain's centre."""
    experiment = attrs.evolve(plain, head=head)
    model, state, domains = _after(experiment, steps)
    found = head_statistics(model, experiment, state, domains, Recording(every=1, samples=30, epsilon=1e9))[
        "inconsistency"
    ]
    other = build_model(experiment, experiment.data(0, None))
    other.both().load_state_dict(state.parameters)
    weights = {name: p.detach() for name, p in other.head.named_parameters()}
    first, second = random_directions(weights, seed=0).vectors
    points = [(a / 5, b / 5) for a in range(-5, 6) for b in range(-5, 6)]
    risks = torch.zeros(2, len(points))
    for column, (a, b) in enumerate(points):
        moved = {name: w + a * first[name] + b * second[name] for name, w in weights.items()}
        for row, domain in enumerate(domains):
            logits = functional_call(other.head, moved, (other.featurizer(domain.inputs[:30]),))
            risks[row, column] = experiment.loss(logits, domain.labels[:30]).mean().detach()
    centre = risks[:, points.index((0, 0))]
    expected = max((risks[1] - centre[0]).abs().max(), (risks[0] - centre[1]).abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, check_dtype=False)


def test_weights_that_are_not_finite_are_recorded_as_they_are(plain):
    model, state, domains = _after(plain, 2)
    state = attrs.evolve(state, parameters={name: p * torch.nan for name, p in state.parameters.items()})
    moment = head_statistics(model, plain, state, domains, Recording(every=1))
    assert moment["inconsistency"].isnan()
    assert moment["risks"].isnan().all()
