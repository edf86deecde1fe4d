import pytest
import torch
from attrs import frozen
from torch import nn

from fishr.data.images.preprocessing import Preprocessing
from fishr.errors import InputError
from fishr.methods import ARM, MTL, Activated, Anchored, LabelAndDomain
from fishr.models.featurizers import (
    MLP,
    MNISTCNN,
    FeatureDropout,
    dropout_factors,
    published_preprocessing,
    without_weights,
)
from fishr.models.resnet import ResNet
from fishr.training import Frozen


def test_the_default_mlp_is_the_irm_network():
    featurizer = MLP()((2, 14, 14), torch.Generator().manual_seed(0))
    shapes = [tuple(parameter.shape) for parameter in featurizer.parameters()]
    assert shapes == [(390, 392), (390,), (390, 390), (390,)]
    assert [type(layer) for layer in featurizer] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]


@pytest.mark.parametrize("shape", [(7,), (2, 8, 8), (3, 1, 2, 2)])
@pytest.mark.parametrize("widths", [(), (5,), (6, 5)])
def test_mlp_features_are_what_the_module_gives(shape, widths):
    mlp = MLP(widths)
    features = mlp(shape, torch.Generator().manual_seed(0))(torch.ones(3, *shape))
    assert features.shape == (3, mlp.features(shape))


def test_the_mlp_equals_the_matrix_products_by_hand():
    featurizer = MLP((5, 4))((2, 3), torch.Generator().manual_seed(0)).double()
    inputs = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, second = featurizer[1], featurizer[3]
    hidden = (inputs.reshape(6, 6) @ first.weight.T + first.bias).clamp(min=0)
    expected = (hidden @ second.weight.T + second.bias).clamp(min=0)
    assert torch.allclose(featurizer(inputs), expected, rtol=1e-12, atol=1e-12)


def test_one_seed_is_one_mlp():
    first, again, other = (
        MLP((5,))((3,), torch.Generator().manual_seed(seed)).state_dict()["1.weight"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("widths", [(0,), (3, -1)])
def test_layers_without_features_are_refused(widths):
    with pytest.raises(InputError, match=f"widths: got {widths[-1]}, expected a whole number of at least 1"):
        MLP(widths)


def written_out(channels: int) -> nn.Sequential:
    """The network of DomainBed's paper, layer by layer."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, 1, padding=1),
        nn.ReLU(),
        nn.GroupNorm(8, 64),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.GroupNorm(8, 128),
        nn.Conv2d(128, 128, 3, 1, padding=1),
        nn.ReLU(),
        nn.GroupNorm(8, 128),
        nn.Conv2d(128, 128, 3, 1, padding=1),
        nn.ReLU(),
        nn.GroupNorm(8, 128),
    )


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (2, 28), (3, 4), (4, 1)])
def test_the_cnn_is_the_network_written_out(channels, side):
    shape = (channels, side, side)
    module = MNISTCNN()(shape, torch.Generator().manual_seed(0))
    torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(0))))
    oracle, inputs = written_out(channels), torch.randn(5, *shape)
    torch.testing.assert_close(module(inputs), oracle(inputs).mean((2, 3)))


def test_the_first_weights_of_the_cnn_are_uniform_as_torch_draws_them():
    first, _, _, second, *_ = MNISTCNN()((2, 28, 28), torch.Generator().manual_seed(0))
    for layer, fan_in in ((first, 2 * 9), (second, 64 * 9)):
        bound = fan_in**-0.5
        for weights in (layer.weight, layer.bias):
            assert 0.9 * bound < weights.abs().max() <= bound
        # A uniform variable on ±a has the variance a² / 3.
        assert layer.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.1)


def test_nothing_in_the_cnn_depends_on_train_or_eval_mode():
    module, inputs = MNISTCNN()((1, 28, 28), torch.Generator().manual_seed(0)), torch.randn(4, 1, 28, 28)
    assert torch.equal(module.train()(inputs), module.eval()(inputs))


def dropout(rate: float, shape: tuple[int, ...] = (4,)) -> torch.nn.Module:
    return FeatureDropout(rate)(shape, torch.Generator())


def test_training_drops_a_share_and_scales_up_the_rest():
    features = dropout(0.25)(torch.ones(5000, 4))
    assert features.unique().tolist() == pytest.approx([0, 4 / 3])
    dropped = (features == 0).double()
    # 20,000 draws: the share's standard deviation is 0.003. Draws next to each other are bits of one word.
    assert dropped.mean().item() == pytest.approx(0.25, abs=0.015)
    for other in (*range(1, 4), 4, 8):
        both = dropped.flatten()[other:] * dropped.flatten()[:-other]
        assert both.mean().item() == pytest.approx(0.25**2, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("rate", "kept"), [(1e-6, 1), (0.2, 1 - 13107 / 2**16), (0.5, 0.5), (1 - 1e-9, 2**-16)])
def test_a_rate_is_a_multiple_of_two_to_the_minus_16_and_the_mean_is_exact(rate, kept, dtype):
    factors = dropout_factors(torch.ones(1, 100_000, dtype=dtype), [rate], [None])[0]
    assert factors.dtype == dtype
    if dtype == torch.float64:
        assert {*factors.unique().tolist()} <= {0, 1 / kept}
    assert (factors > 0).double().mean().item() == pytest.approx(kept, abs=0.01)


def test_dropout_follows_torchs_seed_and_hands_gradients_to_what_it_keeps():
    inputs = torch.randn(3, 2, 5, requires_grad=True)
    draws = [dropout(0.5, (2, 5)) for _ in range(2)]
    torch.manual_seed(1)
    features = draws[0](inputs)
    features.sum().backward()
    assert torch.equal(inputs.grad.flatten(1) * inputs.flatten(1), features)
    assert not torch.equal(draws[0](inputs) == 0, features == 0)
    torch.manual_seed(1)
    assert torch.equal(draws[1](inputs), features)
    assert dropout(0.5)(torch.ones(0, 4)).shape == (0, 4)


def test_dropout_of_a_compiled_module_and_of_each_sample_alone():
    compiled = torch.compile(dropout(0.5), backend="eager")
    alone = torch.func.vmap(dropout(0.5).forward, randomness="different")
    for features in (compiled(torch.ones(400, 4)), alone(torch.ones(400, 1, 4))):
        assert features.unique().tolist() == [0, 2]
        assert (features == 0).double().mean().item() == pytest.approx(0.5, abs=0.1)


def test_evaluation_hands_on_everything():
    inputs = torch.randn(3, 2, 5)
    assert torch.equal(dropout(0.9, (2, 5)).eval()(inputs), inputs.flatten(1))


def test_without_a_rate_training_is_the_identity_and_draws_nothing():
    inputs, before = torch.randn(3, 2, 5), torch.get_rng_state()
    assert torch.equal(dropout(0.0, (2, 5)).train()(inputs), inputs.flatten(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_has_no_weights_and_reads_no_generator():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    module = FeatureDropout(0.5)((2, 3), generator)
    assert not module.state_dict()
    assert torch.equal(generator.get_state(), before)
    assert FeatureDropout(0.5).features((2, 3)) == 6


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan")])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(InputError, match=r"^rate: got .*, expected a number of at least 0.0 and less than 1.0$"):
        FeatureDropout(rate)
    with pytest.raises(InputError, match=r"^dropout: got "):
        ResNet(dropout=rate)


@frozen
class OfFile:
    weights: str | None = "gone.pt"

    def without_weights(self):
        return OfFile(None)

    def published_preprocessing(self):
        return Preprocessing(32)


@frozen
class Around:
    inner: object
    width: int = 1


@pytest.mark.parametrize("wrapper", [Around, ARM, Activated, Anchored, LabelAndDomain, MTL])
def test_a_wrapper_has_the_weights_and_the_preprocessing_of_what_it_wraps(wrapper):
    made = wrapper(Around(OfFile(), width=7))
    assert without_weights(made) == wrapper(Around(OfFile(None), width=7))
    assert published_preprocessing(made) == Preprocessing(32)
    assert without_weights(wrapper(MLP())) == wrapper(MLP())
    assert published_preprocessing(wrapper(MLP())) is None


def test_weights_of_a_run_are_not_the_published_ones():
    assert published_preprocessing(Frozen(OfFile())) == Preprocessing(32)
    assert published_preprocessing(Frozen(OfFile(), weights="run")) is None
    assert without_weights(Frozen(OfFile(), weights="run")) == Frozen(OfFile(None))
