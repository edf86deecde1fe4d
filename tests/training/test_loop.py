"""The loop's events, and that they depend on the state alone."""

import attrs
import pytest
import torch

from fishr.data.batches import Minibatch
from fishr.data.domains import Domain, Domains
from fishr.data.images.image_inputs import ImageInputs
from fishr.data.images.image_stores import ImageFiles
from fishr.data.images.preprocessing import Preprocessing
from fishr.errors import InputError
from fishr.training.checkpoints import load, save
from fishr.training.compute import resolve_device
from fishr.training.loop import Evaluated, Finished, Started, Stepped, train
from fishr.training.state import initial_state


def _rest(events):
    """What can be compared of events: records and scores, and the last state."""
    comparable = [e.record if isinstance(e, Stepped) else (e.step, e.scores) for e in events[:-1]]
    return comparable, events[-1].scores


def test_events_come_in_order(plain):
    events = list(train(plain))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert [e.step for e in events if isinstance(e, Evaluated)] == [2, 4, 6, 7]
    steps = [e for e in events if isinstance(e, Stepped)]
    assert [e.record.step for e in steps] == list(range(7))
    assert [e.state.step for e in steps] == list(range(1, 8))
    assert [e.record.terms["fishr"].weight for e in steps] == [1.0] * 3 + [9000.0] * 4
    assert events[-1].scores == events[-2].scores
    assert events[-1].state is steps[-1].state


@pytest.mark.slow
def test_resuming_from_every_state_gives_the_same_bits(experiment, same, tmp_path):
    """Saved, loaded and gone on: the same events and the same last state, wherever it was cut."""
    whole = list(train(experiment))
    template = initial_state(experiment, whole[0].domains)
    cuts = [0, *(index for index, event in enumerate(whole) if isinstance(event, Stepped))]
    assert len(cuts) == experiment.steps + 1
    for cut in cuts:
        save(tmp_path / "checkpoint.pt", whole[cut].state, "")
        state = load(tmp_path / "checkpoint.pt", template).state
        started, *resumed = train(experiment, state=state)
        assert started.state.step == whole[cut].state.step
        assert _rest(resumed) == _rest(whole[cut + 1 :])
        assert same(resumed[-1].state, whole[-1].state)


def test_the_mean_loss_falls(plain):
    experiment = attrs.evolve(plain, steps=80, evaluate_every=80, batches=Minibatch(size=50))
    experiment = attrs.evolve(
        experiment, objective=attrs.evolve(plain.objective, penalty=type(plain.objective.penalty)())
    )
    *_, last = train(experiment)
    assert all(score.accuracy > 0.75 for score in last.scores if score.split == "training")


def test_a_state_beyond_the_end_is_refused(plain):
    *_, last = train(plain)
    with pytest.raises(InputError, match="state: got one after 7 steps, expected at most the 5"):
        next(train(attrs.evolve(plain, steps=5), state=last.state))


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "mps", ""])
def test_a_device_that_is_absent_is_refused(name):
    with pytest.raises(InputError, match=f"device: got '{name}', expected auto") as caught:
        resolve_device(name)
    assert "\n" not in str(caught.value)


def test_auto_is_a_device():
    assert resolve_device("auto").type in ("cpu", "cuda")


def test_images_that_are_to_be_held_are_read_before_the_first_step(tmp_path):
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.new("RGB", (9, 8), "red").save(tmp_path / name)
    unread = ImageInputs(ImageFiles(tmp_path, ("a.png", "b.png")), Preprocessing(8), prepare="device_cache")
    domain = Domain("photo", unread, torch.tensor([0, 1]))
    moved = Domains((domain,), (), classes=2).to(torch.device("cpu"))
    for file in tmp_path.iterdir():
        file.unlink()
    assert moved.training[0].inputs.read([1]).shape == (1, 3, 8, 8)


@attrs.frozen
class TakesZeros:
    """A loss of one's own that says which labels it takes."""

    def __call__(self, logits, labels):
        return logits.sum(1)

    def outputs(self, classes):
        return classes

    def check_labels(self, labels, outputs):
        if labels.any():
            raise InputError(f"zeros: got {labels.max()} for {outputs} outputs, expected 0")


def test_labels_that_the_loss_does_not_take_are_refused_before_the_first_step(plain):
    zeros, ones = (Domain(str(label), torch.zeros(4, 128), torch.full((4,), label)) for label in (0, 1))
    for domains in (Domains((zeros, ones), (), classes=2), Domains((zeros,), (ones,), classes=2)):
        with pytest.raises(InputError, match="domain '1': zeros: got 1 for 2 outputs, expected 0"):
            next(train(attrs.evolve(plain, loss=TakesZeros()), domains=domains))
