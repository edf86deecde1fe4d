import pytest
import torch

from fishr.errors import InputError
from fishr.models.dropout import FeatureDropout, check_rate


def build(rate: float, shape: tuple[int, ...] = (4,)) -> torch.nn.Module:
    return FeatureDropout(rate)(shape, torch.Generator())


def test_training_drops_a_share_and_scales_up_the_rest():
    features = build(0.2)(torch.ones(5000, 4))
    assert sorted(features.unique().tolist()) == [0, 1.25]
    # 20,000 draws: the share's standard deviation is 0.003.
    assert (features == 0).float().mean().item() == pytest.approx(0.2, abs=0.015)


def test_evaluation_hands_on_everything():
    inputs = torch.randn(3, 2, 5)
    assert torch.equal(build(0.9, (2, 5)).eval()(inputs), inputs.flatten(1))


def test_without_a_rate_training_is_the_identity_and_draws_nothing():
    inputs, before = torch.randn(3, 2, 5), torch.get_rng_state()
    assert torch.equal(build(0.0, (2, 5)).train()(inputs), inputs.flatten(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_it_has_no_weights_and_reads_no_generator():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    module = FeatureDropout(0.5)((2, 3), generator)
    assert not module.state_dict()
    assert torch.equal(generator.get_state(), before)
    assert FeatureDropout(0.5).features((2, 3)) == 6


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(InputError, match=r"^rate: got .*, expected at least 0 and less than 1$"):
        FeatureDropout(rate)
    with pytest.raises(InputError, match=r"^dropout: got "):
        check_rate("dropout", rate)
