"""States in people's own files: torch.save, torch.distributed.checkpoint and safetensors, and what does not fit."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

import fishr
from fishr.errors import InputError
from fishr.methods import GroupDRO
from fishr.observation import Observation
from fishr.penalties import ERM, Average, Fishr, Penalty, Scaled, Stateless, Total
from fishr.types import DomainBatch, Problem


@frozen(eq=False)
class Memory:
    center: Tensor
    seen: tuple[int, ...]


@frozen
class Own:
    """A plugin's penalty, whose state has a record, a list that grows, and everything else that a state may have."""

    def init(self, problem: Problem) -> dict[str, Any]:
        record = Memory(torch.zeros(2), (0, 0))
        return {"a.b": record, "a": {"b": torch.zeros(1)}, "old": [], "name": "mean", "last": None, "on": True}

    def __call__(self, seen: Observation, state: dict[str, Any], step: int) -> tuple[Tensor, dict[str, Any]]:
        risks = seen.domain_losses
        memory: Memory = state["a.b"]
        center = 0.5 * memory.center + 0.5 * risks.detach()
        state = {
            "a.b": Memory(center, (memory.seen[0] + 1, step)),
            "a": {"b": center[:1]},
            "old": [*state["old"][-1:], (risks.detach(), step / 3)],
            "name": state["name"],
            "last": None if state["last"] is None and step < 2 else center.sum(),
            "on": step % 2 == 0,
        }
        return (risks - center).square().sum(), state


PENALTIES: dict[str, Penalty] = {
    "none": ERM(),
    "function": Stateless(lambda seen: seen.losses.mean()),
    "average": Fishr(ema=0.9),
    "weights": GroupDRO(eta=0.5),
    "total": Total(gap=Scaled(Fishr(ema=0.5, gain="debiased"), 10.0), mine=Own(), risk=ERM(), other=Total(one=Own())),
}


def torch_file(saved: Any, folder: Path) -> Any:
    torch.save({"model": {}, "penalty": saved}, folder / "checkpoint.pt")
    return torch.load(folder / "checkpoint.pt")["penalty"]


def distributed(saved: Any, folder: Path) -> Any:
    dcp.save({"penalty": saved}, checkpoint_id=folder / "checkpoint")
    # Into a template of the same structure, as DCP does it.
    template = {"penalty": zeroed(saved)}
    dcp.load(template, checkpoint_id=folder / "checkpoint")
    return template["penalty"]


def zeroed(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return torch.zeros_like(tree)
    if isinstance(tree, dict):
        return {key: zeroed(part) for key, part in tree.items()}
    return type(tree)(map(zeroed, tree)) if isinstance(tree, list | tuple) else tree


def flat_file(saved: Any, folder: Path) -> Any:
    safetensors.torch.save_file(saved, folder / "state.safetensors")
    return safetensors.torch.load_file(folder / "state.safetensors")


WAYS: dict[str, tuple[bool, Callable[[Any, Path], Any]]] = {
    "torch.load": (False, torch_file),
    "distributed": (False, distributed),
    "safetensors": (True, flat_file),
    "torch.load of tensors alone": (True, torch_file),
}


class Loop:
    """A loop of one's own, whose whole state is its weights, its optimizer and its penalty's state."""

    def __init__(self, penalty: Penalty) -> None:
        torch.manual_seed(0)
        self.featurizer, self.head, self.penalty = nn.Linear(3, 3), nn.Linear(3, 2), penalty
        self.network = nn.Sequential(self.featurizer, self.head)
        self.problem = Problem.of(self.head, 2)
        self.state = penalty.init(self.problem)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1)

    def run(self, first: int, end: int) -> None:
        for step in range(first, end):
            draws = torch.Generator().manual_seed(step)
            inputs, labels = torch.randn(6, 3, generator=draws), torch.randint(2, (6,), generator=draws)
            # Domain 1 is missing once where the penalty allows it.
            batch = DomainBatch(inputs, labels, (2, 4))
            value, self.state = self.penalty(fishr.observe(self.featurizer, self.head, batch), self.state, step)
            self.optimizer.zero_grad()
            value.backward()
            self.optimizer.step()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("way", WAYS)
def test_a_loop_continues_bit_for_bit(name: str, way: str, tmp_path: Path) -> None:
    flat, through = WAYS[way]
    whole, half, rest = (Loop(PENALTIES[name]) for _ in range(3))
    whole.run(0, 6)
    half.run(0, 3)
    saved = through(fishr.state_dict(half.state, flat=flat), tmp_path)
    rest.state = fishr.load_state(rest.penalty, rest.problem, saved)
    rest.network.load_state_dict(half.network.state_dict())
    rest.run(3, 6)
    for one, other in zip(rest.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(one, other)
    found, expected = fishr.state_dict(rest.state, flat=True), fishr.state_dict(whole.state, flat=True)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
    assert type(rest.state) is type(whole.state)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.builds(
        lambda n, dtype: torch.arange(n).to(dtype), st.integers(0, 3), st.sampled_from([torch.bfloat16, torch.int64])
    ),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text("ab.", max_size=3), inner, max_size=3),
    ),
    max_leaves=8,
)


@frozen
class Grows:
    def init(self, problem: Problem) -> None:
        return None

    def __call__(self, seen: Observation, state: Any, step: int) -> tuple[Tensor, Any]:
        raise AssertionError


@pytest.mark.slow
@given(trees)
def test_any_tree_survives_as_tensors_alone(tree: Any) -> None:
    saved = fishr.state_dict(tree, flat=True)
    assert all(type(value) is Tensor for value in saved.values())
    stored = safetensors.torch.load(safetensors.torch.save(saved))
    found = fishr.load_state(Grows(), Problem.of(nn.Linear(3, 2), 2), stored)
    assert same(found, tree)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def changed(**entries: Any) -> Any:
    def change(saved: dict[str, Any]) -> dict[str, Any]:
        return {**saved, "state": {**saved["state"], **entries}}

    return change


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no dict": (
        lambda saved: saved["state"]["value"],
        "^saved state: got a torch.Tensor, expected the dict that fishr.state",
    ),
    "the whole checkpoint": (
        lambda saved: {"model": {}, "penalty": saved},
        "^saved state: got the entries model, penalty, .*part",
    ),
    "the state itself": (
        lambda saved: saved["state"],
        "^saved state: got the entries value, updates, missed, expected what",
    ),
    "a later version": (
        lambda saved: saved | {"version": 2},
        "^saved state: got version 2, expected 1; use the version",
    ),
    "a missing entry": (
        lambda saved: saved | {"state": {"value": saved["state"]["value"]}},
        "^state: got the entries value in the checkpoint, expected the entries value, updates.*load it by the penalty",
    ),
    "an unknown entry": (
        changed(mean=1),
        "^state: got the entries value, updates, missed, mean in the checkpoint, expected",
    ),
    "another shape": (changed(value=torch.zeros(2, 7)), r"^state.value: got a tensor of shape \(2, 7\).*\(2, 8\)"),
    "another type": (changed(value=torch.zeros(2, 8).double()), "^state.value: got .*float64 .*float32"),
    "no tensor": (changed(value=3.0), "^state.value: got 3.0 in the checkpoint, expected a tensor of shape"),
    "no number": (changed(updates="3"), "^state.updates: got '3' in the checkpoint, expected 0"),
    "what no file has": (changed(value=nn.Linear(2, 2)), "^saved state value: got a Linear"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_by_name(name: str) -> None:
    change, message = WRONG[name]
    penalty, problem = Fishr(ema=0.9), Problem.of(nn.Linear(3, 2), 2)
    with pytest.raises(InputError, match=message) as raised:
        fishr.load_state(penalty, problem, change(fishr.state_dict(penalty.init(problem))))
    assert "\n" not in str(raised.value)


def test_a_state_of_another_penalty_head_or_number_of_domains_is_refused() -> None:
    problem, average = Problem.of(nn.Linear(3, 2), 2), Fishr(ema=0.9)
    saved = fishr.state_dict(average.init(problem))
    others = [
        (
            Fishr(),
            problem,
            r"^state: got the entries value, updates, missed in the checkpoint, expected the entries \(none\)",
        ),
        (Total(one=average), problem, "^state: got the entries value, updates, .*expected the entries one"),
        (average, Problem.of(nn.Linear(3, 2), 3), r"shape \(2, 8\).*expected a tensor of shape \(3, 8\)"),
        (average, Problem.of(nn.Linear(3, 2).double(), 2), "float32 .*float64"),
    ]
    for penalty, other, message in others:
        with pytest.raises(InputError, match=message):
            fishr.load_state(penalty, other, saved)


def test_keys_with_dots_are_kept_apart() -> None:
    state = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    found = fishr.load_state(Grows(), Problem.of(nn.Linear(3, 2), 2), fishr.state_dict(state, flat=True))
    assert (found["a.b"].item(), found["a"]["b"].item()) == (0, 1)


def test_damaged_tensors_alone_are_refused() -> None:
    penalty, problem = Fishr(ema=0.9), Problem.of(nn.Linear(3, 2), 2)
    saved = fishr.state_dict(penalty.init(problem), flat=True)
    with pytest.raises(InputError, match=r"^saved state: got no tensor 'state\.value'"):
        fishr.load_state(penalty, problem, {"outline": saved["outline"]})
    with pytest.raises(InputError, match=r"^saved state: got a damaged 'outline'"):
        fishr.load_state(penalty, problem, saved | {"outline": saved["outline"][:-4]})


def test_what_cannot_be_saved_is_refused() -> None:
    with pytest.raises(InputError, match=r"^state 0: got a tensor that holds a graph"):
        fishr.state_dict((torch.zeros(1, requires_grad=True),))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_distributed_checkpoint_is_loaded_into_a_first_state(tmp_path: Path) -> None:
    penalty, problem = Total(gap=Fishr(ema=0.9), risk=ERM()), Problem.of(nn.Linear(3, 2), 2)
    state = {"gap": Average(torch.ones(2, 8), 3, (0, 1)), "risk": ()}
    dcp.save({"penalty": fishr.state_dict(state)}, checkpoint_id=tmp_path)
    saved = {"penalty": fishr.state_dict(penalty.init(problem))}
    dcp.load(saved, checkpoint_id=tmp_path)
    found = fishr.load_state(penalty, problem, saved["penalty"])
    assert (found["gap"].updates, found["gap"].missed, found["risk"]) == (3, (0, 1), ())
    assert_close(found["gap"].value, torch.ones(2, 8))


def test_states_of_before_have_no_missed_updates() -> None:
    """Records saved before a field existed are read."""
    penalty, problem = Fishr(ema=0.9), Problem.of(nn.Linear(3, 2), 2)
    saved = fishr.state_dict(Average(torch.ones(2, 8), 3))
    del saved["state"]["missed"]
    state = fishr.load_state(penalty, problem, saved)
    assert (state.updates, state.missed) == (3, None)
    again = fishr.load_state(penalty, problem, fishr.state_dict(Average(torch.ones(2, 8), 3, (0, 1))))
    assert again.missed == (0, 1)
    assert_close(again.value, torch.ones(2, 8))


def test_the_file_holds_no_more_than_the_state() -> None:
    buffer = io.BytesIO()
    torch.save(fishr.state_dict(Average(torch.ones(1000, 8)[:2], 3)), buffer)
    assert len(buffer.getvalue()) < 5000
