"""A featurizer with the weights of another run: whose, unchanged, resumable, refused where it does not fit."""

import attrs
import pytest
import torch

from fishr.errors import InputError
from fishr.models.featurizers import MLP
from fishr.training.frozen_features import Frozen
from fishr.training.loop import Stepped, train
from fishr.training.model import build_model
from fishr.training.optimizers import Adam
from fishr.training.runs import run
from fishr.training.sgd import SGD


@pytest.fixture
def base(plain, tmp_path):
    """A finished run of two hidden layers."""
    folder = tmp_path / "base"
    list(run(plain, folder, experiment_text=""))
    return folder


def _weights(path):
    return torch.load(path, weights_only=True)["parameters"]


@pytest.mark.parametrize("file", ["", "checkpoint.pt"])
def test_it_has_the_weights_of_the_run(plain, base, file):
    experiment = attrs.evolve(plain, featurizer=Frozen(plain.featurizer, str(base / file)))
    model = build_model(experiment, experiment.data(0, None))
    trained = {k.removeprefix("featurizer."): v for k, v in _weights(base / "checkpoint.pt").items() if "featu" in k}
    assert {name: v.tolist() for name, v in model.featurizer.inner.state_dict().items()} == {
        name: v.tolist() for name, v in trained.items()
    }


def test_without_a_run_it_has_the_seeds_first_weights(plain):
    domains = plain.data(0, None)
    frozen = build_model(attrs.evolve(plain, featurizer=Frozen(plain.featurizer)), domains)
    first = build_model(plain, domains)
    assert torch.equal(frozen.featurizer.inner[1].weight, first.featurizer[1].weight)
    assert not torch.equal(
        frozen.featurizer.inner[1].weight,
        build_model(attrs.evolve(plain, featurizer=Frozen(plain.featurizer), seed=1), domains)
        .featurizer.inner[1]
        .weight,
    )


def test_the_head_starts_as_on_features_alone(plain, base):
    """Nothing is drawn for what is frozen."""
    domains = plain.data(0, None)
    features = attrs.evolve(
        domains,
        training=tuple(attrs.evolve(d, inputs=d.inputs.flatten(1)[:, :6]) for d in domains.training),
        evaluation=(),
    )
    alone = build_model(attrs.evolve(plain, featurizer=MLP(())), features)
    for weights in (None, str(base)):
        frozen = build_model(attrs.evolve(plain, featurizer=Frozen(plain.featurizer, weights)), domains)
        assert torch.equal(frozen.head.weight, alone.head.weight)


@pytest.mark.parametrize("optimizer", [Adam(lr=0.01), SGD(lr=0.05, momentum=0.9, weight_decay=0.01)])
def test_only_the_head_learns_whatever_the_featurizer_is(everything, optimizer):
    """Dropout is off, and the buffers of the batch normalization stay too."""
    experiment = attrs.evolve(everything, featurizer=Frozen(everything.featurizer), optimizer=optimizer)
    states = [event.state for event in train(experiment) if hasattr(event, "state")]
    first, last = states[0], states[-1]
    moved = {n for n in first.parameters if not torch.equal(first.parameters[n], last.parameters[n])}
    assert moved == {"head.weight", "head.bias"}
    assert all(torch.equal(first.buffers[n], last.buffers[n]) for n in first.buffers)
    assert len(first.buffers) == 3
    assert len(last.optimizer.steps) == 2


@pytest.mark.slow
def test_it_goes_on_to_the_same_bits(plain, base, tmp_path, bits):
    """With its weights from its own checkpoint: the run that they came from may have gone on."""
    experiment = attrs.evolve(plain, featurizer=Frozen(plain.featurizer, str(base)))
    untouched = list(run(experiment, tmp_path / "untouched", experiment_text=""))[-1].state
    going = run(experiment, tmp_path / "cut", experiment_text="")
    for event in going:
        if isinstance(event, Stepped) and event.state.step == 4:
            break
    going.close()
    other = attrs.evolve(plain, seed=9)
    list(run(other, tmp_path / "other", experiment_text=""))
    (tmp_path / "other" / "checkpoint.pt").replace(base / "checkpoint.pt")
    resumed = list(run(experiment, tmp_path / "cut", experiment_text="", resume=True))[-1].state
    assert bits(resumed) == bits(untouched)
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "untouched" / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_the_decay_in_the_loss_is_of_what_learns(plain):
    experiment = attrs.evolve(plain, featurizer=Frozen(plain.featurizer))
    events = list(train(experiment))
    weights = events[0].state.parameters
    expected = 0.001 * sum(float(weights[name].square().sum()) for name in ("head.weight", "head.bias"))
    assert events[1].record.l2 == pytest.approx(expected)


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        (MLP((7,)), r"has shape \(6, 7\) for 3.weight, expected none"),
        (MLP((7, 5)), r"has shape \(6, 7\) for 3.weight, expected \(5, 7\)"),
        (MLP((7, 6, 2)), r"has shape none for 5.weight, expected \(2, 6\)"),
    ],
)
def test_another_featurizer_is_refused(plain, base, inner, told):
    experiment = attrs.evolve(plain, featurizer=Frozen(inner, str(base)))
    with pytest.raises(InputError, match=told):
        next(train(experiment))


def test_no_run_and_no_checkpoint_are_refused(plain, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.pt").write_bytes(b"PK")
    for name, told in (
        ("none", "no such run folder"),
        ("empty", "no checkpoint.pt yet"),
        ("other.pt", "not a readable"),
    ):
        with pytest.raises(InputError, match=told) as caught:
            next(train(attrs.evolve(plain, featurizer=Frozen(plain.featurizer, str(tmp_path / name)))))
        assert "\n" not in str(caught.value)
