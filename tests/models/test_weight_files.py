import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from fishr.errors import InputError
from fishr.models.weight_files import hub_file, load_weights, read_weights, weights_for

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


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.safetensors"])
def test_a_state_dict_is_read_as_it_was_saved(tmp_path, name):
    from safetensors.torch import save_file

    state = nn.Linear(3, 2).state_dict()
    (save_file if name.endswith("safetensors") else torch.save)(dict(state), tmp_path / name)
    read = read_weights(tmp_path / name)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_checkpoint_of_a_training_program_has_its_state_dict_below_a_key(tmp_path, key):
    torch.save({key: {"weight": torch.ones(2)}, "epoch": 3}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").keys() == {"weight"}


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
        ({"state_dict": {"weight": [1.0]}}, "expected a dict of tensors by name"),
        ({"network": {"weight": torch.ones(2)}}, "expected a dict of tensors by name"),
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


def test_what_is_no_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such file; give"):
        read_weights(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"a.pth: no such file in the working directory, {tmp_path}; give"):
        read_weights(Path("a.pth"))


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


CLASSIFIER = ("2.weight", "2.bias")


def whole():
    return nn.Sequential(*network(), nn.Linear(2, 4))


def matched(tmp_path, given, match=None):
    torch.save(given, tmp_path / "a.pth")
    return weights_for(whole().state_dict(), CLASSIFIER, tmp_path / "a.pth", match)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "module.model.", "module.backbone."])
def test_prefixes_of_wrappers_are_stripped_and_the_rest_of_their_models_is_not_read(tmp_path, prefix):
    state = whole().state_dict()
    beside = {"criterion.weight": torch.ones(3)} if prefix else {}
    got = matched(tmp_path, {prefix + name: tensor for name, tensor in state.items()} | beside)
    assert list(got) == [name for name in state if name not in CLASSIFIER]
    assert all(torch.equal(got[name], state[name]) for name in got)


def test_a_prefix_that_the_network_has_itself_stays(tmp_path):
    names = {"model.weight": torch.ones(2), "bias": torch.ones(2)}
    torch.save(names, tmp_path / "a.pth")
    assert weights_for(names, (), tmp_path / "a.pth", None).keys() == names.keys()


def foreign(state, *, classifier=True, classes=4):
    """The same tensors in the same order under other names, without counters."""
    last = {"2.weight": torch.ones(classes, 2), "2.bias": torch.ones(classes)} if classifier else {}
    kept = {name: tensor for name, tensor in state.items() if name not in CLASSIFIER and "num_batches" not in name}
    return {f"_part{number}.{name[2:]}": one for number, (name, one) in enumerate((kept | last).items())}


@pytest.mark.parametrize("options", [{}, {"classes": 7}, {"classifier": False}])
def test_tensors_are_matched_by_order_when_asked_and_a_warning_shows_the_pairs(tmp_path, options):
    state = whole().state_dict()
    pairs = r"_part0.weight to 0.weight, …, _part\d\S+ to \S+;"
    with pytest.warns(UserWarning, match=rf"a\.pth: [68] tensors are matched by order, not by name: {pairs}"):
        got = matched(tmp_path, foreign(state, **options), "order")
    assert list(got) == [name for name in state if name not in CLASSIFIER and "num_batches" not in name]
    assert all(torch.equal(got[name], state[name]) for name in got)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"more": torch.ones(2)}, "has 9 tensors, expected the 6 of the network or 8 with its classifier"),
        ({"_part1.bias": torch.ones(3)}, r"tensor 2 is _part1.bias of shape \(3,\), in the network 0.bias of shape"),
        ({"_part6.weight": torch.ones(4, 3)}, r"tensor 7 is _part6.weight of shape \(3,\), in the network 2.weight"),
    ],
)
def test_tensors_of_another_network_are_refused_by_order(tmp_path, change, reason):
    with pytest.raises(InputError, match=reason):
        matched(tmp_path, foreign(whole().state_dict()) | change, "order")


def test_equal_shapes_in_another_order_are_refused_where_the_names_tell(tmp_path):
    given = foreign(whole().state_dict())
    names = [*given]
    names[2:4] = names[3], names[2]
    with pytest.raises(InputError, match=r"tensor 3 is _part3.bias of shape \(2,\), in the network 1.weight of shape"):
        matched(tmp_path, {name: given[name] for name in names}, "order")


def test_a_file_in_another_order_is_not_matched_by_order_unasked(tmp_path):
    given = matched(tmp_path, foreign(whole().state_dict()))
    assert next(iter(given)) == "_part0.weight"
