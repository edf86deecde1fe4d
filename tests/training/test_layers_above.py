"""Training of the layers above a frozen one: bit-identical on its cached outputs, and no other weight changes."""

import attrs
import pytest
import torch

from fishr.analysis.layer_caching import cache_layer, layer_outputs
from fishr.data import CachedFeatures, Minibatch
from fishr.data.caches import open_activations
from fishr.errors import InputError
from fishr.models import MLP
from fishr.training import Frozen, LayersAbove, train
from fishr.training.model import build_model, place
from fishr.training.state import first_state


@pytest.fixture
def minibatches(plain):
    data = attrs.evolve(plain.data, training_images=200, copies=1)
    return attrs.evolve(plain, data=data, featurizer=MLP((40, 24, 16)), batches=Minibatch(8), steps=4)


def last_state(experiment, data_dir=None):
    return [event.state for event in train(experiment, data_dir) if hasattr(event, "state")][-1]


@pytest.mark.slow
@pytest.mark.parametrize(("at", "precision"), [("4", "fp32"), ("4", "bf16"), ("0", "fp32")])
def test_the_bits_are_those_of_training_through_the_frozen_part(minibatches, tmp_path, at, precision):
    compute = attrs.evolve(minibatches.compute, precision=precision)
    experiment = attrs.evolve(minibatches, compute=compute)
    assert cache_layer(layer_outputs(experiment, at), tmp_path / "a.h5")
    through = last_state(attrs.evolve(experiment, featurizer=Frozen(MLP((40, 24, 16)), at=at)))
    data = CachedFeatures("a.h5", at=at)
    above = LayersAbove(MLP((40, 24, 16)), at, (2, 8, 8))
    for featurizer in (above, attrs.evolve(above, weights=str(tmp_path / "a.h5"))):
        cached = last_state(attrs.evolve(experiment, data=data, featurizer=featurizer), tmp_path)
        for name, value in cached.parameters.items():
            assert torch.equal(value, through.parameters[name]), name
        assert "featurizer.above.5.weight" in cached.parameters
        assert not any(name.startswith("featurizer.below") for name in cached.parameters)
    first = first_state(experiment, build_model(experiment, experiment.data(experiment.seed, None)), 2).parameters
    below = {name: value for name, value in through.parameters.items() if ".below." in name}
    assert len(below) == (2 if at == "4" else 0) * 2
    for name, value in below.items():
        assert torch.equal(value, first[name.replace("below.inner.", "")])
    assert not torch.equal(through.parameters["featurizer.above.5.weight"], first["featurizer.5.weight"])


def test_the_file_has_the_outputs_and_the_weights_of_a_state(minibatches, tmp_path):
    """Of other weights than the first ones, as a run has."""
    outputs = layer_outputs(minibatches, "featurizer.2", domains=("gray",))
    model = build_model(minibatches, minibatches.data(minibatches.seed, None))
    state = first_state(minibatches, model, 2)
    place(model, state.parameters, state.buffers)
    gray = minibatches.data(minibatches.seed, None).evaluation[-1]
    assert [section.name for section in outputs.sections] == ["gray"]
    cache_layer(outputs, tmp_path / "a.h5")
    cache = open_activations(tmp_path / "a.h5")
    expected = model.featurizer[:3](gray.inputs).detach()
    torch.testing.assert_close(torch.from_numpy(cache.domain(0)["activations"]), expected)
    assert cache.weights.keys() == {"3.weight", "3.bias", "5.weight", "5.bias"}
    assert (cache.weights["5.bias"] == state.parameters["featurizer.5.bias"].numpy()).all()


def test_activations_of_other_weights_are_refused(minibatches, tmp_path):
    cache_layer(layer_outputs(attrs.evolve(minibatches, seed=9), "4"), tmp_path / "a.h5")
    above = LayersAbove(MLP((40, 24, 16)), "4", (2, 8, 8))
    experiment = attrs.evolve(minibatches, data=CachedFeatures("a.h5", at="4"), featurizer=above)
    with pytest.raises(InputError, match=r"'flip 0\.2': its activations are of other weights than those below"):
        last_state(experiment, tmp_path)
    assert last_state(attrs.evolve(experiment, seed=9), tmp_path).step == 4


def test_other_shapes_layers_and_networks_are_refused(minibatches, tmp_path):
    cache_layer(layer_outputs(minibatches, "4"), tmp_path / "a.h5")
    above, generator = LayersAbove(MLP((40, 24, 16)), "4", (2, 8, 8), str(tmp_path / "a.h5")), torch.Generator()
    with pytest.raises(InputError, match=r"got inputs of shape \(7,\), expected the outputs of 4, \(24,\)"):
        above((7,), generator)
    with pytest.raises(InputError, match="has the layers above '4', expected those above '2'"):
        attrs.evolve(above, at="2")((40,), generator)
    with pytest.raises(InputError, match=r"has shape \(16, 24\) for 5\.weight, expected \(17, 24\)"):
        attrs.evolve(above, inner=MLP((40, 24, 17)))((24,), generator)
    with pytest.raises(InputError, match="inputs"):
        LayersAbove(MLP(), "1", (0, 3))
