"""Trees to plain containers and back."""

import io
from collections import OrderedDict, UserDict, namedtuple

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fishr.errors import InputError
from fishr.tensor_trees import copies, each_tensor, joined_rows, named_tensors, plain, require_tree, restored, to_device


@attrs.frozen(eq=False)
class Memory:
    average: object
    _count: int = 0


@attrs.frozen
class Nothing:
    pass


leaves = st.one_of(
    st.none(),
    st.integers(-5, 5),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.builds(lambda n: torch.arange(n), st.integers(0, 3)),
    st.builds(Nothing),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3),
        st.builds(Memory, inner, st.integers(0, 3)),
    ),
    max_leaves=8,
)


def _equal(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other) and one.dtype == other.dtype
    if type(one) is not type(other):
        return False
    if attrs.has(type(one)):
        return all(_equal(getattr(one, f.name), getattr(other, f.name)) for f in attrs.fields(type(one)))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


@given(trees)
def test_a_tree_survives_the_file(tree):
    buffer = io.BytesIO()
    torch.save(plain(tree), buffer)
    buffer.seek(0)
    read = torch.load(buffer, weights_only=True)
    assert _equal(restored(read, tree, "tree"), tree)


@given(trees)
def test_moving_to_the_own_device_changes_nothing(tree):
    assert _equal(to_device(tree, torch.device("cpu")), tree)


def test_every_tensor_has_its_path():
    tree = {"a": (Memory(torch.zeros(1), 3), [torch.ones(2)]), "b": None}
    assert [name for name, _ in named_tensors(tree)] == ["a.0.average", "a.1.0"]


Pair = namedtuple("Pair", "first second")


def test_structures_keep_their_kind_and_mappings_become_dicts():
    tree = {"a": Pair(torch.ones(1), [torch.zeros(2)]), "b": UserDict(c=torch.ones(3)), "n": 3}
    found = each_tensor(lambda tensor: tensor + 1, tree)
    assert isinstance(found["a"], Pair)
    assert type(found["b"]) is dict
    assert found["n"] == 3
    assert [tensor.tolist() for _, tensor in named_tensors(found)] == [[2.0], [1.0, 1.0], [2.0, 2.0, 2.0]]


def test_rows_are_joined_in_order():
    one, two = ({"a": (torch.full((n, 2), float(n)),)} for n in (1, 2))
    assert joined_rows([one, two])["a"][0][:, 0].tolist() == [1.0, 2.0, 2.0]
    with pytest.raises(TypeError, match="the entries a and the entries a, b"):
        joined_rows([one, two | {"b": torch.zeros(1)}])


@attrs.frozen(eq=False)
class Later:
    count: int
    more: object = None
    always: object = None


def test_a_field_that_is_none_by_default_may_be_missing_from_a_file():
    assert attrs.asdict(restored({"count": 5}, Later(3), "state")) == {"count": 5, "more": None, "always": None}
    assert restored({"count": 5, "more": (1,)}, Later(3), "state").more == (1,)
    with pytest.raises(InputError, match="state: got the entries more in the checkpoint"):
        restored({"more": 1}, Later(3), "state")
    with pytest.raises(InputError, match="state: got the entries count, other"):
        restored({"count": 1, "other": 1}, Later(3), "state")
    with pytest.raises(InputError, match="state: got the entries count in the checkpoint"):
        restored({"count": 1}, Later(3, more=torch.zeros(1)), "state")


def test_a_state_that_began_empty_may_be_refused():
    assert restored((), (), "state", growing=False) == ()
    assert restored((1,), None, "state", growing=False) == (1,)
    with pytest.raises(InputError, match="state: got the entries 0 in the checkpoint, expected the entries"):
        restored((1,), (), "state", growing=False)


def test_a_view_does_not_drag_its_storage_along():
    view = torch.zeros(1000, 1000)[0, :3]
    assert plain({"view": view})["view"].untyped_storage().nbytes() == 12


@pytest.mark.parametrize(
    ("tree", "template", "message"),
    [
        (torch.zeros(2), torch.zeros(3), r"got a tensor of shape \(2,\) .* expected a tensor of shape \(3,\)"),
        (torch.zeros(2).double(), torch.zeros(2), "torch.float64"),
        (5, torch.zeros(2), "got 5 in the checkpoint"),
        ({"a": 1}, {"b": 1}, "got the entries a in the checkpoint, expected the entries b"),
        ((1,), (1, 2), "expected the entries 0, 1"),
        (True, 1, "got True in the checkpoint, expected 1"),
        (1, True, "got 1 in the checkpoint, expected True"),
        ("1", 1.5, "got '1' in the checkpoint, expected 1.5"),
        (None, 1, "got None in the checkpoint, expected 1"),
        (torch.zeros(2), 1, "got a tensor"),
        (None, Memory(1), "got None in the checkpoint, expected the entries average, _count"),
    ],
)
def test_what_does_not_fit_is_refused(tree, template, message):
    with pytest.raises(InputError, match=f"penalty.fishr: .*{message}"):
        restored({"fishr": tree}, {"fishr": template}, "penalty")


def test_a_count_may_have_become_a_fraction():
    assert restored({"a": 0.5, "b": 2}, {"a": 0, "b": 1.5}, "penalty") == {"a": 0.5, "b": 2}


def test_a_state_that_began_empty_is_taken_as_it_is():
    assert restored({"a": (1, 2)}, {"a": None}, "penalty") == {"a": (1, 2)}
    assert restored({"a": (1, 2)}, {"a": ()}, "penalty") == {"a": (1, 2)}


@given(trees)
def test_trees_are_taken_as_states(tree):
    require_tree(tree, "state")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (torch.nn.Linear(2, 2), r"^state: got a Linear, expected .*functional_call$"),
        ({"net": {"of": torch.nn.ReLU()}}, "^state net.of: got a ReLU"),
        ((0, Memory(np.zeros(2))), r"^state 1.average: got a ndarray, .*torch.as_tensor"),
        ({"count": np.float64(1.0)}, "^state count: got a float64"),
        ([{1, 2}], "^state 0: got a set"),
        (Pair(1, 2), "^state: got a Pair.*a plain tuple"),
        (OrderedDict(a=1), "^state: got a OrderedDict"),
        ({"a": {3: 1}}, "^state a: got the key 3, expected strings"),
        ((torch.zeros(1, requires_grad=True),), r"^state 0: got a tensor that holds a graph.*tensor.detach"),
        ({"weight": torch.nn.Parameter(torch.zeros(1))}, "^state weight: got a tensor that holds a graph"),
    ],
)
def test_what_is_no_state_is_refused_by_name(tree, message):
    with pytest.raises(InputError, match=message) as caught:
        require_tree(tree, "state")
    assert "\n" not in str(caught.value)


def test_copies_have_the_numbers_types_and_layout_of_the_tensors_and_neither_their_memory_nor_a_graph() -> None:
    images = torch.randn(2, 3, 4, 4, requires_grad=True).to(memory_format=torch.channels_last)
    given = [images, torch.tensor(3), torch.randn(5, dtype=torch.float64), torch.empty(0), torch.randn(4, 3).T]
    found = copies(tensor for tensor in given)
    for tensor, copied in zip(given, found, strict=True):
        assert torch.equal(copied, tensor)
        assert (copied.dtype, copied.stride(), copied.requires_grad) == (tensor.dtype, tensor.stride(), False)
        assert not copied.numel() or copied.data_ptr() != tensor.data_ptr()
    assert copies([]) == []
