"""Scores against the definition."""

import attrs
import pytest
import torch

from fishr.data import Domain
from fishr.models.featurizers import MNISTCNN
from fishr.training import evaluation
from fishr.training.evaluation import evaluate, score_domain
from fishr.training.model import build_model
from fishr.training.state import first_state


def _start(experiment):
    domains = experiment.data(experiment.seed, None)
    model = build_model(experiment, domains)
    return domains, model, first_state(experiment, model, 2)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 7, 8192])
def test_scores_are_the_means(plain, chunk):
    domains, model, state = _start(plain)
    scores = evaluate(model, plain, state, domains, chunk=chunk)
    assert [s.split for s in scores] == ["training", "training", "evaluation", "evaluation"]
    for score, domain in zip(scores, (*domains.training, *domains.evaluation), strict=True):
        with torch.no_grad():
            logits = model.head(model.featurizer(domain.inputs)).squeeze(1).double()
        labels = domain.labels.double()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        assert score.loss == pytest.approx(float(loss), rel=1e-6)
        assert score.accuracy == pytest.approx(float(((logits > 0) == labels.bool()).double().mean()), abs=1e-12)
        assert (score.name, score.samples) == (domain.name, len(labels))


def test_modes_are_restored_and_buffers_stay(everything, same):
    domains, model, state = _start(everything)
    model.featurizer[2].eval()
    modes = [module.training for module in model.both().modules()][1:]
    first = evaluate(model, everything, state, domains)
    assert [module.training for module in model.both().modules()][1:] == modes
    assert not modes[3]
    assert any(modes)
    assert same(model.buffers(), state.buffers)
    assert evaluate(model, everything, state, domains) == first


def test_modes_are_restored_after_a_failure(everything):
    domains, model, state = _start(everything)
    broken = attrs.evolve(everything, loss=lambda logits, labels: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(model, broken, state, domains)
    assert all(module.training for module in model.featurizer.modules())


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="needs NNPACK")
def test_networks_of_small_images_are_scored_by_fourier_transforms(plain, monkeypatch):
    """Not to the bit, but the loss to seven digits and the same accuracy."""
    monkeypatch.setattr(evaluation, "has_avx512", lambda: False)
    experiment = attrs.evolve(plain, featurizer=MNISTCNN())
    domains, model, state = _start(experiment)
    fast, slow = (evaluate(model, experiment, state, domains, chunk) for chunk in (8192, 127))
    assert [score.loss for score in fast] != [score.loss for score in slow]
    for one, other in zip(fast, slow, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-6)
        assert one.accuracy == other.accuracy


class Images:
    """Images that are read when they are needed."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __len__(self):
        return len(self.values)

    def read(self, rows, seeds=None):
        return self.values[list(rows)]

    def finish(self, read, rows, seeds=None, out=None):
        return read if out is None else out.copy_(read)


@pytest.mark.parametrize("avx512", [False, True])
def test_images_pass_with_channels_last(plain, monkeypatch, avx512):
    """The same scores; tensors keep their layout without AVX-512."""
    monkeypatch.setattr(evaluation, "has_avx512", lambda: avx512)
    _, model, _ = _start(plain)
    layouts, network = (
        [],
        torch.nn.Sequential(torch.nn.Conv2d(2, 6, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
    )
    network[0].register_forward_pre_hook(lambda _, args: layouts.append(args[0].is_contiguous()))
    both = attrs.evolve(model, featurizer=network)
    values, labels = torch.randn(9, 2, 14, 14), torch.arange(9) % 2
    with torch.no_grad():
        read, held = (
            score_domain(both, plain, Domain("art", inputs, labels), "evaluation")
            for inputs in (Images(values), values)
        )
    assert layouts == [False, not avx512]
    assert read.loss == pytest.approx(held.loss, rel=1e-6)
    assert attrs.evolve(read, loss=0.0) == attrs.evolve(held, loss=0.0)


@pytest.mark.parametrize(
    ("featurizer", "avx512", "sizes"),
    [(MNISTCNN(), False, [300, 300]), (MNISTCNN(), True, [67] * 6 + [66] * 3), (None, True, [600])],
    ids=["CNN by Fourier transforms", "CNN", "MLP"],
)
@torch.no_grad()
def test_convolutions_pass_few_images_at_once_with_the_same_bits(plain, monkeypatch, featurizer, avx512, sizes):
    monkeypatch.setattr(evaluation, "has_avx512", lambda: avx512)
    experiment, seen = attrs.evolve(plain, featurizer=featurizer or plain.featurizer), []
    domains, model, _ = _start(experiment)
    domain = domains.training[0].part([*range(100)] * 6)
    model.featurizer.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    score = score_domain(model, experiment, domain, "training")
    assert seen == sizes
    monkeypatch.setattr(evaluation, "_DIRECT", 1000)
    monkeypatch.setattr(evaluation, "_FOURIER", 1000)
    assert score_domain(model, experiment, domain, "training") == score
    assert seen == [*sizes, 600]
