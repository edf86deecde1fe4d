"""Features of whole domains: against the modules, to the bit from any row on."""

import attrs
import pytest
import torch

from fishr.models.featurizers import MLP
from fishr.training.compute import Compute
from fishr.training.frozen_features import domain_features
from fishr.training.model import build_model
from fishr.training.state import first_state


def _start(experiment):
    domains = experiment.data(experiment.seed, None)
    model = build_model(experiment, domains)
    return domains, model, first_state(experiment, model, 2)


def _whole(*arguments, **options):
    features, logits = zip(*domain_features(*arguments, **options), strict=True)
    return torch.cat(features), torch.cat(logits)


def test_they_are_what_the_modules_give_in_eval_mode(experiment):
    domains, model, state = _start(experiment)
    state = attrs.evolve(state, parameters={name: torch.randn_like(p) for name, p in state.parameters.items()})
    features, logits = _whole(model, experiment, state, domains.evaluation[0])
    other = build_model(experiment, domains)
    other.both().load_state_dict(state.parameters | state.buffers)
    other.both().eval()
    expected = other.featurizer(domains.evaluation[0].inputs)
    torch.testing.assert_close(features, expected.detach())
    torch.testing.assert_close(logits, other.head(expected).detach())
    assert not features.requires_grad
    assert not logits.requires_grad


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bits_depend_on_neither_chunk_nor_start(plain, precision):
    experiment = attrs.evolve(plain, featurizer=MLP((40, 30)), compute=Compute(precision=precision))
    domains, model, state = _start(experiment)
    domain = domains.evaluation[0]
    features, logits = _whole(model, experiment, state, domain)
    assert features.dtype == logits.dtype == torch.float32
    for start, chunk in ((0, 64), (64, 128), (128, 8192)):
        again = _whole(model, experiment, state, domain, chunk=chunk, start=start)
        assert torch.equal(again[0], features[start:])
        assert torch.equal(again[1], logits[start:])
    assert torch.equal(_whole(model, experiment, state, domain, chunk=33, start=7)[0], features[7:])


def test_the_featurizer_runs_in_the_experiments_precision(plain):
    experiment = attrs.evolve(plain, featurizer=MLP((40, 30)))
    domains, model, state = _start(experiment)
    single, _ = _whole(model, experiment, state, domains.training[0])
    half, _ = _whole(model, attrs.evolve(experiment, compute=Compute(precision="bf16")), state, domains.training[0])
    assert torch.equal(half, half.bfloat16().float())
    assert not torch.equal(half, single)
    torch.testing.assert_close(half, single, rtol=0.05, atol=0.05)


def test_between_two_chunks_the_model_is_free(everything, bits):
    """Modes are back, and another state's numbers do not stay."""
    domains, model, state = _start(everything)
    model.head.eval()
    modes = [module.training for module in model.both().modules()]
    expected, _ = _whole(model, everything, state, domains.training[0], chunk=64)
    before, parts = bits(state), []
    for features, _ in domain_features(model, everything, state, domains.training[0], chunk=64):
        assert [module.training for module in model.both().modules()] == modes
        parts.append(features)
        for parameter in model.parameters().values():
            parameter.data = torch.zeros_like(parameter)
    assert torch.equal(torch.cat(parts), expected)
    assert bits(state) == before
