"""An analysis is what the diagnostics say of the rows that were asked for, in float64."""

import attrs
import pytest
import torch
from analysis.subjects import part
from torch import nn

from fishr.analysis import Network, Settings, analyze
from fishr.analysis.report import pick
from fishr.diagnostics import measure
from fishr.errors import InputError


def _measured(subject, domains=(0, 1, 2), rows=None):
    samples = [subject.seen.domain_samples[index] for index in domains]
    rows = rows or [torch.arange(len(labels)) for _, labels in samples]
    features = torch.cat([features[index].double() for (features, _), index in zip(samples, rows, strict=True)])
    labels = torch.cat([labels[index] for (_, labels), index in zip(samples, rows, strict=True)])
    head = nn.Linear(4, 3).double()
    head.load_state_dict({name: weight.double() for name, weight in subject.seen.head.state_dict().items()})
    return measure(head, features, labels, tuple(map(len, rows)), subject.seen.loss, rank=20)


def _close(one, other):
    torch.testing.assert_close(one.value, other.value, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_everything_is_there_in_float64(subject):
    found = analyze(subject)
    assert found.quantities.keys() == _measured(subject).keys()
    assert {q.value.dtype for q in found.quantities.values()} == {torch.float64}
    assert (found.name, found.loss, found.domains) == ("mine", "CrossEntropy", ("photo", "sketch", "clip art"))
    assert (found.rows, found.samples, found.training) == ((9, 12, 7), (9, 12, 7), ("photo", "sketch"))
    assert found.layout.size == 15
    assert found.network == {}


def test_domains_by_themselves_and_in_pairs(subject):
    """What is said of a domain or a pair does not depend on which other domains are there."""
    found = analyze(subject).quantities
    pair = _measured(subject, (0, 2))
    for name, quantity in pair.items():
        if quantity.axes[:1] != ("domain",):
            continue
        value = found[name].value[[0, 2]]
        if quantity.axes == ("domain", "domain"):
            value = value[:, [0, 2]]
        # Random draws are others where there are other domains.
        slack = 0.0 if quantity.error is None else 6 * float(quantity.error.max())
        torch.testing.assert_close(value, quantity.value, rtol=1e-6, atol=1e-9 + slack, equal_nan=True, msg=name)


def test_together_means_the_training_domains(subject):
    found = analyze(subject).quantities
    training = _measured(subject, (0, 1))
    everything = _measured(subject)
    together = [name for name, quantity in found.items() if "domain" not in quantity.axes]
    assert {"variance_distance_scale_free", "hessian_diagonal_distance_scale_free", "sign_agreement"} <= set(together)
    for name in together:
        _close(found[name], training[name])
    for name in ("variance_distance_scale_free", "gradient_spread"):
        assert not torch.isclose(found[name].value, everything[name].value)


def test_rows_that_are_drawn(subject):
    settings = Settings(samples=8, seed=4)
    found = analyze(subject, settings)
    assert (found.rows, found.samples) == ((9, 12, 7), (8, 8, 7))
    rows = [pick(name, rows, settings) for name, rows in zip(subject.domains, subject.seen.sizes, strict=True)]
    expected = _measured(subject, rows=rows)
    _close(found.quantities["gradient_variance"], expected["gradient_variance"])
    whole = analyze(subject).quantities["gradient_variance"].value
    assert not torch.allclose(found.quantities["gradient_variance"].value[1], whole[1])
    torch.testing.assert_close(found.quantities["gradient_variance"].value[2], whole[2])


def test_which_rows_are_drawn():
    rows = pick("photo", 200, Settings(samples=50))
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == 50
    assert torch.equal(rows, pick("photo", 200, Settings(samples=50)))
    assert not torch.equal(rows, pick("photo", 200, Settings(samples=50, seed=1)))
    assert not torch.equal(rows, pick("sketch", 200, Settings(samples=50)))
    for samples in (200, 201, None):
        assert pick("photo", 200, Settings(samples=samples)).tolist() == list(range(200))
    # Neither end is left out.
    drawn = [pick("photo", 200, Settings(samples=50, seed=seed)) for seed in range(60)]
    assert min(int(rows.min()) for rows in drawn) == 0
    assert max(int(rows.max()) for rows in drawn) == 199


def test_the_head_is_not_touched(subject):
    before = {name: weight.clone() for name, weight in subject.seen.head.state_dict().items()}
    analyze(subject)
    after = subject.seen.head.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    assert subject.seen.head.weight.grad is None


def test_a_single_training_domain(subject):
    one = part(subject, (0,))
    found = analyze(one).quantities
    assert found["variance_distances"].value.shape == (1, 1)
    assert found["variance_distance_scale_free"].value == 0


def test_a_network_is_measured_from_its_inputs(subject):
    """A featurizer that only turns the features' sign leaves the curvature of the head, and adds none of its own."""
    flip = nn.Linear(4, 4, bias=False).requires_grad_(False)
    flip.weight.copy_(-torch.eye(4))
    network = Network(flip, tuple(-features for features, _ in subject.seen.domain_samples))
    found = analyze(attrs.evolve(subject, network=network), Settings(network=True, samples=8))
    assert {"hessian_trace", "top_eigenvalues", "spectral_density"} <= found.network.keys()
    trace = found.quantities["hessian_trace"].value
    torch.testing.assert_close(found.network["hessian_trace"].value.double(), trace, rtol=1e-4, atol=1e-6)
    assert trace.min() > 0.1


def test_refused(subject):
    with pytest.raises(InputError, match="mine: got no training domain among photo, sketch, clip art, expected at le"):
        analyze(attrs.evolve(subject, splits=("evaluation",) * 3))
    with pytest.raises(InputError, match="mine: got a cache, which holds features alone, expected a run for the whole"):
        analyze(subject, Settings(network=True))
    for samples in (1, 0, -3, 2.0, True):
        with pytest.raises(InputError, match="samples: got"):
            Settings(samples=samples)
    with pytest.raises(InputError, match="seed: got -1"):
        Settings(seed=-1)
