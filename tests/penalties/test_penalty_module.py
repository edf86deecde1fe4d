"""A penalty as a module: the values and states of the penalty itself, in a model's checkpoint, on any device."""

import io
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

import fishr

PENALTY = fishr.Total(
    fishr=fishr.Scaled(fishr.Fishr(ema=0.9), fishr.LinearSchedule(0.0, 10.0, steps=3)), group=fishr.GroupDRO(eta=0.5)
)


class Model(nn.Module):
    def __init__(self, penalty: fishr.Penalty = PENALTY, width: int = 4) -> None:
        super().__init__()
        self.head, self.matched = nn.Linear(width, 2), fishr.PenaltyModule(penalty)

    def seen(self, step: int, domains: int = 3) -> fishr.Observation:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(5 * domains, self.head.in_features, generator=generator)
        labels = torch.randint(2, (5 * domains,), generator=generator)
        batch = fishr.DomainBatch(inputs, labels, [5] * domains)
        return fishr.observe(nn.Identity(), self.head, batch.to(self.head.weight.device))


def reloaded(model: Model, into: Model) -> Model:
    """Load a model's state into another one, through a file of torch and one of safetensors."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    into.load_state_dict(load(save(torch.load(file))))
    return into


def test_values_are_those_of_the_penalty_through_files_at_any_step() -> None:
    model = Model()
    state = PENALTY.init(fishr.Problem.of(model.head, domains=3))
    for step in range(4):
        expected, state = PENALTY(model.seen(step), state, step)
        # Loaded twice, so that a state passes through a module that was never called.
        model = reloaded(reloaded(model, Model()), Model())
        assert torch.equal(model.matched(model.seen(step)), expected)
        assert model.matched.step == step + 1
    assert torch.equal(model.matched.state["fishr"].value, state["fishr"].value)
    assert not list(model.matched.parameters())


@pytest.mark.parametrize(
    ("other", "domains"), [(Model(width=6), 3), (Model(), 4), (Model(fishr.Fishr(ema=0.9)), 3)], ids=str
)
def test_a_state_that_does_not_fit_is_an_error_of_the_first_call(other: Model, domains: int) -> None:
    model = Model()
    model.matched(model.seen(0))
    other.matched.load_state_dict(model.matched.state_dict())
    with pytest.raises(fishr.InputError, match=r"load it by the penalty and the problem \(head, domains"):
        other.matched(other.seen(1, domains))


@pytest.fixture
def _meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's device without data, which refuses to be mixed with another, has no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())


@pytest.mark.usefixtures("_meta")
def test_the_state_is_where_the_head_is() -> None:
    model = Model(fishr.GroupDRO(eta=0.5))
    model.matched(model.seen(0))
    model.to("meta")
    assert model.matched(model.seen(1)).device.type == "meta"
    assert model.matched.state.device.type == "meta"


@pytest.mark.usefixtures("_meta")
def test_the_state_of_fishr_follows_the_head_in_a_plain_loop() -> None:
    penalty, head = fishr.Fishr(ema=0.9), nn.Linear(4, 2)
    state = penalty.init(fishr.Problem.of(head, domains=3))
    labels = torch.zeros(4, dtype=torch.long, device="meta")
    batch = fishr.DomainBatch(torch.zeros(4, 4, device="meta"), labels, (2, 2, 0))
    value, state = penalty(fishr.observe(nn.Identity(), head.to("meta"), batch), state, step=0)
    assert value.device.type == state.value.device.type == "meta"
