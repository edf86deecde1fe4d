"""Environments of NumPy files: equal to a loop over the samples, mapped or in memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fishr.data import HeldOut, NumPyData
from fishr.data.numpy_data import MappedInputs
from fishr.data.reading import tensor_of
from fishr.errors import InputError


def save(folder, as_file=False, **arrays):
    """Save arrays in an .npz, or as .npy files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if as_file:
        np.savez(folder / "all.npz", **arrays)
        return folder / "all.npz"
    for name, values in arrays.items():
        np.save(folder / name, values)
    return folder


def drawn(count, kind, seed=0):
    random = np.random.default_rng(seed)
    shape = {"gray": (4, 5), "color": (4, 5, 3), "row": (6,)}[kind]
    inputs = random.normal(size=(count, *shape)).astype(np.float64)
    return inputs if kind == "row" else random.integers(0, 256, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("kind", ["gray", "color", "row"])
@settings(max_examples=10)
@given(data=st.data())
def test_each_domain_has_its_samples_in_their_order(tmp_path_factory, as_file, kind, data):
    count = data.draw(st.integers(4, 12))
    domains = [0, 10, 9, *data.draw(st.lists(st.sampled_from([0, 9, 10]), min_size=count - 3, max_size=count - 3))]
    labels = ["cat", "dog", *data.draw(st.lists(st.sampled_from(["cat", "dog", "owl"]), min_size=count - 2))][:count]
    inputs, domains, labels = drawn(count, kind), np.array(domains[:count]), np.array(labels)
    path = save(tmp_path_factory.mktemp("data"), as_file, inputs=inputs, labels=labels, domains=domains)
    found = NumPyData(str(path))(0, None)
    names = sorted(set(labels.tolist()))
    assert found.class_names == tuple(names)
    assert [domain.name for domain in found.domains] == ["0", "9", "10"]
    for domain in found.domains:
        rows = [row for row in range(count) if str(domains[row]) == domain.name]
        assert domain.labels.tolist() == [names.index(labels[row]) for row in rows]
        expected = torch.stack([one(inputs[row]) for row in rows])
        assert tuple(domain.inputs.shape) == tuple(expected.shape)
        assert torch.equal(tensor_of(domain.inputs), expected)


def one(values):
    """Return one input as the slow way makes it: channels first, from 0 to 1."""
    if values.dtype != np.uint8:
        return torch.tensor(values, dtype=torch.float32)
    height, width, *channels = values.shape
    made = torch.empty(*(channels or [1]), height, width)
    for row in range(height):
        for column in range(width):
            made[:, row, column] = torch.tensor(np.atleast_1d(values[row, column]).astype(np.float32)) / 255
    return made


def test_files_of_a_folder_are_mapped_and_selected_unread(tmp_path):
    save(tmp_path / "scans", x=drawn(6, "color"), y=np.arange(6) % 2, hospital=np.array(list("aabbcc")))
    data = NumPyData("scans", "x", "y", "hospital", environments=("c", "a"), samples=1)
    found = data(0, tmp_path)
    assert [(each.name, each.labels.tolist()) for each in found.domains] == [("c", [0]), ("a", [0])]
    inputs = found.domains[0].inputs
    assert isinstance(inputs, MappedInputs)
    assert isinstance(inputs.array, np.memmap)
    assert found.class_names is None
    split = HeldOut(NumPyData("scans", "x", "y", "hospital"), test=(0,), holdout_fraction=0.5)(0, tmp_path)
    assert [domain.name for domain in split.training] == ["env1_in", "env2_in"]


GOOD = {"inputs": drawn(4, "row"), "labels": np.array([0, 1, 0, 1]), "domains": np.array(list("aabb"))}
SCANS = np.zeros((4, 3, 32, 32), np.uint8)


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"labels": None, "label": GOOD["labels"]},
            r"it has no array 'labels' \(did you mean label\?\) but domains, inp",
        ),
        ({"domains": None}, "it has no array 'domains' but inputs, labels; save it with numpy.save"),
        ({"labels": GOOD["labels"][:3]}, r"labels has shape \[3\], expected \[4\], one for each input"),
        ({"domains": GOOD["domains"][:, None]}, r"domains has shape \[4, 1\], expected \[4\]"),
        ({"labels": GOOD["labels"] + 1}, "classes: the smallest label is 1, expected 0; subtract 1"),
        ({"labels": GOOD["labels"] + 0.5}, "labels: got label 0.5, expected whole numbers from 0"),
        ({"labels": np.array(["cat"] * 4)}, "labels has the class 'cat' alone, expected at least 2"),
        ({"domains": np.zeros(4)}, "domains is float64, expected whole numbers or texts"),
        ({"inputs": GOOD["inputs"] * [1, 1, 1, 1, 1, np.nan]}, "inputs: an input of row 0 is NaN, infinite"),
        ({"inputs": np.zeros((4, 2), np.int64)}, "inputs.* int64, expected .*floats, or uint8 images"),
        ({"inputs": SCANS}, r"inputs has shape \[4, 3, 32, 32\], expected uint8 images \[N, H, W, C\]; move the chan"),
        ({"inputs": SCANS[:, 0, 0]}, r"inputs has shape \[4, 32\], expected uint8 images"),
        ({"inputs": np.array([{"a": 1}] * 4)}, "it holds pickled objects, which are never loaded"),
        ({"inputs": np.zeros((0, 2)), "labels": np.zeros(0), "domains": np.zeros(0, int)}, "inputs has no samples"),
    ],
)
def test_what_is_no_data_is_refused_with_a_remedy(tmp_path, as_file, changed, reason):
    arrays = {name: values for name, values in {**GOOD, **changed}.items() if values is not None}
    if not as_file and "label" in changed:
        reason = reason.replace("domains, inp", "domains, inputs, label;")
    path = save(tmp_path / "data", as_file, **dict(sorted(arrays.items())))
    with pytest.raises(InputError, match=reason) as caught:
        NumPyData(str(path))(0, None)
    assert "\n" not in str(caught.value)


def test_places_that_are_none_and_environments_that_do_not_exist(tmp_path):
    path = save(tmp_path / "data", **GOOD)
    with pytest.raises(InputError, match=r"domains has no 'A' \(did you mean a\?\); it has a, b"):
        NumPyData(str(path), environments=("A",))(0, None)
    with pytest.raises(InputError, match="classes: got 1, expected a whole number of at least 2"):
        NumPyData(str(path), classes=1)
    with pytest.raises(InputError, match="no such file or folder; give an"):
        NumPyData("nowhere")(0, tmp_path)
    (tmp_path / "a.npz").write_text("no")
    with pytest.raises(InputError, match=r"a.npz: not an .npz file; save it with numpy.savez"):
        NumPyData("a.npz")(0, tmp_path)
    whole = (path / "inputs.npy").read_bytes()
    (path / "inputs.npy").write_bytes(whole[:-8])
    with pytest.raises(InputError, match=r"inputs.npy: damaged"):
        NumPyData("data")(0, tmp_path)


@pytest.mark.parametrize("as_file", [False, True])
def test_the_samples_of_a_group_stay_together(tmp_path, as_file):
    labels, domains, patient = (
        np.arange(24) % 2,
        np.arange(24) // 12,
        np.char.add("p", (np.arange(24) // 3).astype(str)),
    )
    arrays = {"inputs": np.arange(24.0)[:, None], "labels": labels, "domains": domains, "patient": patient}
    source = NumPyData(str(save(tmp_path / "a", as_file, **arrays)), groups="patient")
    made = HeldOut(source, test=(1,), holdout_fraction=0.3)(0, None)
    found = {part.name: {int(value) // 3 for value in tensor_of(part.inputs).flatten()} for part, _ in made.by_split}
    assert sorted(map(len, found.values())) == [1, 1, 3, 3]
    assert not found["env0_in"] & found["env0_out"]
    with pytest.raises(InputError, match="doctor is float64, expected whole numbers or texts"):
        NumPyData(str(save(tmp_path / "b", as_file, **arrays, doctor=np.zeros(24))), groups="doctor")(0, None)
    with pytest.raises(InputError, match=r"doctor has shape \[3\], expected \[24\]"):
        NumPyData(str(save(tmp_path / "c", as_file, **arrays, doctor=np.zeros(3, int))), groups="doctor")(0, None)
