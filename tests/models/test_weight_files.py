import hashlib

import pytest
import torch
from torch import nn

from fishr.errors import InputError
from fishr.models.weight_files import hub_file, load_weights, read_weights

CONTENT = b"not really weights"
GOOD = f"tiny-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


def file_of(name):
    return hub_file(f"https://example.org/models/{name}", fetch="make tiny", otherwise="use none")


def test_a_whole_file_is_found_by_the_last_part_of_its_url(hub):
    (hub / GOOD).write_bytes(CONTENT)
    assert file_of(GOOD) == hub / GOOD


def test_a_name_without_a_hash_is_taken_as_it_is(hub):
    (hub / "tiny-v2.pth").write_bytes(CONTENT)
    assert file_of("tiny-v2.pth") == hub / "tiny-v2.pth"


def test_an_absent_file_is_told_with_its_remedies(hub, no_network):
    with pytest.raises(InputError) as told:
        file_of(GOOD)
    expected = f"weights: no {GOOD} in {hub}; on a machine with a network type: make tiny; or use none"
    assert str(told.value) == expected


@pytest.mark.parametrize("content", [CONTENT[:-1], b"", CONTENT[:-1] + b"S"], ids=["cut", "empty", "flipped"])
def test_a_damaged_file_is_refused_by_name(hub, content):
    (hub / GOOD).write_bytes(content)
    with pytest.raises(InputError, match=rf"{GOOD}: cut short or damaged: .*, expected {GOOD[5:13]}; .*make tiny"):
        file_of(GOOD)


def test_a_file_that_cannot_be_read_is_told(hub, monkeypatch):
    (hub / GOOD).write_bytes(CONTENT)

    def refused(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refused)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        file_of(GOOD)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_state_dict_is_read_as_it_was_saved(tmp_path, name):
    from safetensors.torch import save_file

    state = nn.Linear(3, 2).state_dict()
    (save_file if name.endswith("safetensors") else torch.save)(dict(state), tmp_path / name)
    read = read_weights(tmp_path / name)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


class Executed:
    """A pickle of it would run code."""

    def __reduce__(self):
        return pytest.fail, ("a file was executed",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable state dict"),
        (b"PK\x03\x04 cut short", "not a readable state dict"),
        (Executed(), "not a readable state dict"),
        ({}, "expected a dict of tensors by name"),
        ({"state_dict": {"weight": torch.ones(2)}}, "expected a dict of tensors by name"),
        ([torch.ones(2)], "expected a dict of tensors by name"),
        (torch.ones(2), "expected a dict of tensors by name"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, reason):
    path = tmp_path / "a.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=rf"^weights: .*a\.pth: {reason}[^\n]*torch\.save\(module\.state_dict\(\)"):
        read_weights(path)


def test_a_cut_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="not a readable state dict"):
        read_weights(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_weights(tmp_path)


def load(module, given):
    load_weights(module, given, "weights: mine", "give another")


def network():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_all_tensors_are_loaded_and_counters_may_be_absent():
    module, given = network(), {name: torch.full_like(tensor, 7) for name, tensor in network().state_dict().items()}
    load(module, given)
    assert all((tensor == 7).all() for tensor in module.state_dict().values())
    module = network()
    load(module, {name: tensor for name, tensor in given.items() if "num_batches" not in name})
    assert {int(tensor.max()) for tensor in module.state_dict().values()} == {7, 0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"0.weight": torch.ones(2, 4)}, r"has shape \(2, 4\) for 0.weight, expected \(2, 3\)"),
        ({"1.bias": None}, r"has shape none for 1.bias, expected \(2,\)"),
        ({"2.weight": torch.ones(5)}, r"has shape \(5,\) for 2.weight, expected none"),
        ({"1.bias": None, "0.bias": None}, r"has shape none for 0.bias"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named_and_nothing_changes(change, reason):
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    given = {name: torch.full_like(tensor, 7) for name, tensor in before.items()} | change
    with pytest.raises(InputError, match=f"^weights: mine {reason}.*; give another$"):
        load(module, {name: tensor for name, tensor in given.items() if tensor is not None})
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
