"""Penalties on the gradients of other layers than the head's: what they do to all weights, and what is refused."""

from math import prod
from pathlib import Path

import attrs
import pytest
import torch
from ranks import on_ranks
from torch import nn

from fishr.data.batches import Minibatch
from fishr.data.digits import ColoredDigits
from fishr.errors import InputError
from fishr.models.featurizers import MNISTCNN
from fishr.models.initialization import xavier_linear
from fishr.observation import observe
from fishr.penalties import Fishr, Scaled, Total, explain
from fishr.ranks import ALONE, Ranks
from fishr.training.artifacts import Recording
from fishr.training.compute import Compute
from fishr.training.evaluation import evaluate
from fishr.training.frozen_features import on_features
from fishr.training.head_statistics import head_statistics
from fishr.training.loop import Stepped, train
from fishr.training.model import build_model
from fishr.training.objective import Objective
from fishr.training.sgd import SGD
from fishr.training.state import first_state
from fishr.training.step import advance
from fishr.types import DomainBatch, chained

WHOLE = ("featurizer", "head")
SOME = ("featurizer.1", "head.bias")


def _matching(plain, layers, **changes):
    penalty = Total(fishr=Scaled(Fishr(ema=0.9), 3.0))
    return attrs.evolve(
        plain,
        layers=layers,
        objective=Objective(penalty=penalty, l2=0.01),
        optimizer=SGD(lr=1.0),
        data=ColoredDigits(training_images=12),
        **changes,
    )


@attrs.frozen
class FirstLayerInPlace:
    """Its first layer writes into the images, unless told otherwise."""

    inplace: bool = True

    def __call__(self, shape, generator):
        activation = nn.LeakyReLU(0.5, inplace=self.inplace)
        return nn.Sequential(nn.Flatten(), activation, xavier_linear(prod(shape), 6, generator), nn.Tanh())

    def features(self, shape):
        return 6


@pytest.mark.parametrize(
    "changes",
    [{"layers": WHOLE}, {"layers": ("head",)}, {"layers": ("head",), "compute": Compute(micro_batches=2)}],
    ids=str,
)
def test_a_first_layer_in_place_changes_neither_the_step_nor_the_data(plain, same, changes):
    """Images are read again by the moments, by the second pass of a piece, and by the next evaluation."""
    states = []
    for inplace in (True, False):
        experiment = _matching(plain, featurizer=FirstLayerInPlace(inplace), **changes)
        domains = experiment.data(experiment.seed, None)
        for domain in (*domains.training, *domains.evaluation):
            domain.inputs.sub_(0.5)  # to numbers below 0, which the layer changes
        before = [domain.inputs.clone() for domain in (*domains.training, *domains.evaluation)]
        model = build_model(experiment, domains)
        state = first_state(experiment, model, 2)
        for _ in range(2):
            state, _ = advance(model, experiment, state, domains.training)
            scores = evaluate(model, experiment, state, domains)
        states.append((state, scores))
        after = [domain.inputs for domain in (*domains.training, *domains.evaluation)]
        assert all(map(torch.equal, before, after))
    assert states[0][1] == states[1][1]
    assert same(states[0][0].parameters, states[1][0].parameters)


def _gradients_by_hand(network, batch, loss, chosen):
    """Per-sample gradients by a loop, with a graph."""
    rows = []
    for inputs, label in zip(batch.inputs.split(1), batch.labels.split(1), strict=True):
        one = loss(network(inputs), label).sum()
        grads = torch.autograd.grad(one, chosen, create_graph=True)
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


@pytest.mark.parametrize("layers", [WHOLE, SOME, ("head",)])
def test_a_step_goes_down_the_penalty_of_the_chosen_layers(plain, layers):
    experiment = _matching(plain, layers)
    domains = experiment.data(experiment.seed, None)
    model = build_model(experiment, domains)
    state = first_state(experiment, model, 2)
    batch = experiment.batches.draw(domains.training, torch.Generator())
    after, record = advance(model, experiment, state, batch)

    network = build_model(experiment, domains).both()
    chosen = [
        p for name, p in network.named_parameters() if any(f"{name}.".startswith(f"{layer}.") for layer in layers)
    ]
    forward = nn.Sequential(network["featurizer"], network["head"])
    rows = _gradients_by_hand(forward, batch, experiment.loss, chosen)
    variances = torch.stack([part.var(0, correction=0) for part in rows.split(list(batch.sizes))])
    penalty = (variances - variances.mean(0)).square().mean(1).mean()
    losses = experiment.loss(forward(batch.inputs), batch.labels)
    risk = torch.stack([part.mean() for part in losses.split(list(batch.sizes))]).mean()
    l2 = sum(p.square().sum() for p in network.parameters())
    (risk + 3.0 * penalty + 0.01 * l2).backward()

    assert record.terms["fishr"].value == pytest.approx(3.0 * float(penalty.detach()), rel=1e-4)
    for name, parameter in network.named_parameters():
        update = state.parameters[name] - after.parameters[name]
        torch.testing.assert_close(update, parameter.grad, rtol=1e-3, atol=1e-6)


def _trained(ranks: Ranks, experiment):
    events = list(train(experiment, ranks=ranks))
    return [event for event in events if isinstance(event, Stepped)]


@pytest.mark.slow
def test_ranks_share_it(plain):
    experiment = attrs.evolve(_matching(plain, WHOLE), featurizer=MNISTCNN(), batches=Minibatch(6), steps=2)
    expected = _trained(ALONE, experiment)
    for steps in on_ranks(2, _trained, experiment):
        for step, other in zip(steps, expected, strict=True):
            assert step.record.terms["fishr"].value == pytest.approx(other.record.terms["fishr"].value, rel=1e-4)
        for name, weight in expected[0].state.parameters.items():
            torch.testing.assert_close(steps[0].state.parameters[name], weight, rtol=1e-5, atol=1e-6)


def test_statistics_over_time_evaluate_the_same_penalty(plain):
    experiment = _matching(plain, WHOLE)
    domains = experiment.data(experiment.seed, None)
    model = build_model(experiment, domains)
    state = first_state(experiment, model, 2)
    _, record = advance(model, experiment, state, domains.training)
    moment = head_statistics(model, experiment, state, domains.training, Recording(every=1))
    # The first value of a moving average with unit gradient is the statistic itself.
    assert float(moment["penalties"]["fishr"]) * 3.0 == pytest.approx(record.terms["fishr"].value, rel=1e-5)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), r"layers: got \(\), expected names of layers"),
        (("featurizer.9",), r"layers: got 'featurizer.9', which no trainable parameter .* such as 'featurizer"),
        (("tail",), "layers: got 'tail'"),
    ],
)
def test_layers_that_are_not_there_are_refused(plain, layers, message):
    with pytest.raises(InputError, match=message):
        next(train(_matching(plain, layers)))


@attrs.frozen
class WithoutFormula:
    """One of its parameters is unknown to BackPACK."""

    def __call__(self, shape, generator):
        return nn.Sequential(nn.Flatten(), xavier_linear(prod(shape), 6, generator), nn.PReLU())

    def features(self, shape):
        return 6


def test_the_route_is_the_experiments_and_the_one_that_a_refusal_names_works(plain):
    after = {}
    for route in (None, "functional", "backpack"):
        experiment = _matching(plain, WHOLE, featurizer=WithoutFormula(), route=route)
        domains = experiment.data(experiment.seed, None)
        model = build_model(experiment, domains)
        state = first_state(experiment, model, 2)
        if route == "backpack":
            with pytest.raises(InputError, match=r"'featurizer\.2\.weight' of .*PReLU: .*; use route=\"functional\""):
                advance(model, experiment, state, domains.training)
        else:
            after[route], _ = advance(model, experiment, state, domains.training)
    torch.testing.assert_close(after[None].parameters, after["functional"].parameters)


def test_a_featurizer_that_is_no_module_has_no_layers(plain):
    batch = DomainBatch(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), (2, 2))
    seen = observe(torch.tanh, nn.Linear(3, 2), batch, layers=WHOLE)
    with pytest.raises(InputError, match=r"layers: got .* no torch\.nn\.Module"):
        _ = seen.moments
    assert seen.losses.shape == (4,)


def test_a_table_of_them_names_what_is_read():
    featurizer, head = nn.Linear(3, 4), nn.Linear(4, 2)
    seen = observe(featurizer, head, DomainBatch(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), (2, 2)), layers=WHOLE)
    (term,) = explain(Fishr(ema=0.5), seen=seen).terms
    assert (term.reads, term.state) == (("moments",), 2 * (12 + 4 + 8 + 2) + 1)


def test_covariances_of_the_whole_network_are_scaled_by_its_parameters():
    featurizer, head = nn.Linear(3, 4), nn.Linear(4, 2)
    batch = DomainBatch(torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 1]), (3, 3))
    seen = observe(featurizer, head, batch, layers=WHOLE)
    value, _ = Fishr(statistic="covariance")(seen, (), 0)
    rows = _gradients_by_hand(
        chained(featurizer, head), batch, seen.loss, [*featurizer.parameters(), *head.parameters()]
    )
    wide = torch.stack([torch.cov(part.T, correction=0) for part in rows.split(3)])
    torch.testing.assert_close(value, (wide - wide.mean(0)).square().mean((1, 2)).mean())


def test_cached_features_have_no_layers_below_the_head(plain):
    experiment = _matching(plain, WHOLE)
    cached = on_features(experiment, Path("digits.h5"), "0123", {}, experiment.data, experiment.seed)
    assert cached.layers == WHOLE
    model = build_model(attrs.evolve(cached, data=experiment.data), experiment.data(experiment.seed, None))
    with pytest.raises(InputError, match="layers: got 'featurizer'"):
        first_state(cached, model, 2)
