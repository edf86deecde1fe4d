import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fishr.data.arrays import Arrays, from_arrays
from fishr.errors import InputError

X = np.arange(6.0).reshape(3, 2)
Y = np.array([0, 1, 1])


def one(inputs, labels, **more):
    return from_arrays({"a": (inputs, labels)}, **more).training[0]


@given(
    inputs=hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, ">f4"]),
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=4),
        elements=st.floats(-100, 100, width=16),
    ),
    data=st.data(),
)
def test_float_arrays_keep_their_values(inputs, data):
    dtype = data.draw(st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", "f4", "?"]))
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=len(inputs), max_size=len(inputs))), dtype)
    made = one(inputs, labels, classes=2)
    assert made.inputs.dtype == torch.float32
    assert made.labels.dtype == torch.int64
    assert np.array_equal(made.inputs.numpy(), inputs.astype(np.float32))
    assert made.labels.tolist() == [int(label) for label in labels]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("label", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint64, torch.bool])
def test_tensors_keep_their_values(dtype, label):
    made = one(torch.tensor(X, dtype=dtype, requires_grad=True), torch.tensor(Y).to(label))
    assert np.array_equal(made.inputs.numpy(), X.astype(np.float32))
    assert made.labels.tolist() == [0, 1, 1]
    assert not made.inputs.requires_grad


@pytest.mark.parametrize("wrap", [np.asarray, torch.as_tensor])
def test_bytes_are_pictures_from_zero_to_one(wrap):
    inputs = wrap(np.array([[0, 51], [102, 255]], np.uint8))
    made = one(inputs, Y[:2])
    assert torch.allclose(made.inputs, torch.tensor([[0.0, 0.2], [0.4, 1.0]]), atol=1e-7)
    assert int(inputs[1, 1]) == 255


def test_the_widest_floats_are_taken():
    made = one(X.astype(np.longdouble), Y.astype(np.longdouble))
    assert np.array_equal(made.inputs.numpy(), X.astype(np.float32))
    assert made.labels.tolist() == Y.tolist()


def test_strided_and_read_only_arrays_are_taken():
    inputs = np.arange(24.0, dtype=np.float32).reshape(3, 8)[::-1, ::2]
    labels = Y.astype(np.int64)
    inputs.flags.writeable = labels.flags.writeable = False
    made = one(inputs, labels)
    assert np.array_equal(made.inputs.numpy(), inputs)


def test_classes_are_counted_over_all_domains():
    domains = from_arrays({"a": (X, Y), "b": (X[:1], Y[:1])}, evaluation={"c": (X, np.array([2, 2, 0]))})
    assert domains.classes == 3
    assert [domain.name for domain in (*domains.training, *domains.evaluation)] == ["a", "b", "c"]
    assert from_arrays({"a": (X, Y)}, classes=7).classes == 7


@pytest.mark.parametrize(
    ("inputs", "labels", "reason"),
    [
        (np.array([[1.0], [np.nan], [0.0]]), Y, "domain 'a': an input of row 1 is NaN, infinite or beyond float32"),
        (np.array([[1.0], [0.0], [-np.inf]]), Y, "an input of row 2 is NaN"),
        (np.array([[1e300], [0.0], [0.0]]), Y, "an input of row 0 is NaN, infinite or beyond float32"),
        (torch.tensor([[1.0], [0.0], [torch.inf]]), Y, "an input of row 2 is NaN"),
        (np.array(np.nan), Y, "an input of row 0 is NaN"),
        (X[:2], Y, "domain 'a': 2 inputs but 3 labels"),
        (X[:0], Y[:0], "domain 'a': it has no samples"),
        (X[:, 0], Y, r"inputs have shape \[3\]"),
        (X, Y[:, None], r"labels have shape \[3, 1\], expected \[samples\]"),
        (X.astype(int), Y, "inputs are int64, expected an array of floats, or uint8 images"),
        (torch.zeros(3, 2, dtype=torch.int32), Y, "inputs are torch.int32, expected an array of floats"),
        (X.astype(complex), Y, "inputs are complex128"),
        (X.astype(object), Y, "inputs are object"),
        (X.tolist(), Y, "inputs are a list"),
        (X, Y.tolist(), "labels are a list, expected an array of whole numbers"),
        (X, np.array(["cat", "dog", "cat"]), "labels are <U3, expected an array of whole numbers"),
        (X, torch.zeros(3, dtype=torch.complex64), "labels are torch.complex64"),
        (X, np.array([0, 1, 0.5]), "got label 0.5, expected whole numbers from 0"),
        (X, torch.tensor([0, 1, 0.25]), "got label 0.25, expected whole numbers from 0"),
        (X, np.array([0, 1, np.nan]), "got label nan"),
        (X, np.array([0, 1, np.inf]), "got label inf"),
        (X, np.array([-1, -1, -1]), "classes: got 0, expected at least 2"),
        (X, np.array([[0, 1], [0, np.nan], [1, 0]]), "a label of row 1 is NaN"),
        (X, np.array([0, 1, 2**64 - 1], np.uint64), "got label 1.8446744073709552e"),
        (X, np.array([0, 1, 10**6]), "classes: the largest label is 1000000 but there are 3 samples"),
        (X, np.array([0, 0, 0]), "classes: got 1, expected at least 2"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(inputs, labels, reason):
    with pytest.raises(InputError, match=reason) as caught:
        one(inputs, labels)
    assert "\n" not in str(caught.value)


def test_labels_from_1_are_refused_unless_the_number_of_classes_is_given():
    """They would be trained on as one class more, that no row has."""
    with pytest.raises(InputError, match="classes: the smallest label is 1, expected 0; subtract 1 if"):
        one(X, np.array([1, 2, 3]))
    assert from_arrays({"a": (X, np.array([1, 2, 3]))}, classes=4).classes == 4
    assert from_arrays({"a": (X, np.array([1, 2, 2]))}, evaluation={"b": (X, np.array([0, 0, 1]))}).classes == 3


def test_labels_below_0_are_of_samples_without_a_class():
    domains = from_arrays({"a": (X, np.array([0, -100, 1]))})
    assert domains.classes == 2
    assert domains.training[0].labels.tolist() == [0, -100, 1]


def test_several_labels_a_sample_and_numbers_are_floats(tmp_path: Path):
    soft = np.array([[0.25, 0.75], [1, 0], [0, 1]])
    domains = from_arrays({"a": (X, soft)})
    assert (domains.classes, domains.training[0].labels.dtype) == (2, torch.float32)
    numbers = from_arrays({"a": (X, np.array([-0.5, 2, 7], np.float64))}, classes=1)
    assert (numbers.classes, numbers.training[0].labels.tolist()) == (1, [-0.5, 2.0, 7.0])
    np.savez(tmp_path / "a.npz", inputs=X, labels=np.array([5, 6, 7]))
    read = Arrays(("a.npz",), classes=1)(seed=0, data_dir=tmp_path)
    assert read.training[0].labels.tolist() == [5.0, 6.0, 7.0]
    with pytest.raises(InputError, match="classes: got 3 for 2 labels a sample, expected 2"):
        one(X, soft, classes=3)
    with pytest.raises(InputError, match=r"domain 'b': labels are torch.int64 of shape \[3\], expected torch.float32"):
        from_arrays({"a": (X, soft), "b": (X, np.array([0, 1, 0]))})


def test_labels_beyond_the_given_classes_are_refused():
    with pytest.raises(InputError, match="domain 'a': got label 3, expected whole numbers from 0 to 1"):
        one(X, np.array([0, 1, 3]), classes=2)


def test_domains_of_different_shape_or_no_domain_are_refused():
    with pytest.raises(InputError, match=r"domain 'b': one input has shape \[1\], expected \[2\]"):
        from_arrays({"a": (X, Y), "b": (X[:, :1], Y)})
    with pytest.raises(InputError, match="there is no training domain"):
        from_arrays({})
    with pytest.raises(InputError, match="two are called 'a'"):
        from_arrays({"a": (X, Y)}, evaluation={"a": (X, Y)})


def test_files_are_found_in_the_data_folder(tmp_path: Path, monkeypatch):
    tmp_path = tmp_path / "data"
    tmp_path.mkdir()
    np.savez(tmp_path / "photo.npz", inputs=X, labels=Y)
    np.savez_compressed(tmp_path / "sketch.npz", inputs=X[:2], labels=Y[:2], other=X)
    config = Arrays(training=("photo.npz",), evaluation=("sketch.npz",))
    made = config(seed=0, data_dir=tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    for domains in (made, config(seed=1, data_dir=None), Arrays((str(tmp_path / "photo.npz"),))(0, Path("else"))):
        assert domains.training[0].name == "photo"
        assert np.array_equal(domains.training[0].inputs.numpy(), X.astype(np.float32))
    assert made.evaluation[0].name == "sketch"
    assert made.evaluation[0].labels.tolist() == [0, 1]


def test_no_files_are_no_domains():
    with pytest.raises(InputError, match="there is no training domain"):
        Arrays(training=())(seed=0, data_dir=None)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"photo.npz: there is no such file") as caught:
        Arrays(("photo.npz",))(seed=0, data_dir=tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


class Trap:
    """Would leave a mark where it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_pickles_are_refused_and_never_run(tmp_path: Path):
    mark, path = tmp_path / "mark", tmp_path / "a.npz"
    np.savez(path, inputs=np.array([Trap(mark)], dtype=object), labels=Y)
    with pytest.raises(InputError, match=r"a.npz: it holds pickled objects, which are never loaded"):
        Arrays((str(path),))(0, None)
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(InputError, match=r"a.npz: not an .npz file"):
        Arrays((str(path),))(0, None)
    assert not mark.exists()


def write_bad(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("inputs,labels\n")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, X)
    elif kind == "no labels":
        np.savez(path, inputs=X, targets=Y)
    elif kind == "no arrays":
        with zipfile.ZipFile(path, "w"):
            pass
    elif kind == "other members":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inputs", "text")
            archive.writestr("labels", "text")
    elif kind == "bit rot":
        np.savez_compressed(path, inputs=np.random.default_rng(0).random((50, 20)), labels=np.arange(50))
        content = bytearray(path.read_bytes())
        content[500:520] = bytes(20)
        path.write_bytes(content)
    elif kind == "truncated":
        np.savez(path, inputs=X, labels=Y)
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "huge header":
        with zipfile.ZipFile(path, "w") as archive:
            header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000), }".ljust(117) + b"\n"
            archive.writestr("inputs.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    else:
        np.savez(path, inputs=X, labels=Y - 0.5)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("text", "not an .npz file"),
        ("empty", "not an .npz file"),
        ("folder", "not an .npz file"),
        ("npy", "not an .npz file"),
        ("truncated", "not an .npz file"),
        ("no labels", "it has no array 'labels' but inputs, targets"),
        ("no arrays", "it has no array 'inputs' but nothing"),
        ("other members", "inputs are a bytes"),
        ("bit rot", "damaged"),
        ("huge header", "damaged"),
        ("no whole numbers", "got label -0.5, expected whole numbers from 0"),
    ],
)
def test_files_that_hold_no_domain_are_refused(tmp_path: Path, kind: str, reason: str):
    path = tmp_path / "a.npz"
    write_bad(path, kind)
    with pytest.raises(InputError, match=reason) as caught:
        Arrays(("a.npz",))(seed=0, data_dir=tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_without_rows_is_named_by_its_path(tmp_path: Path):
    np.savez(tmp_path / "a.npz", inputs=X[:0], labels=Y[:0])
    with pytest.raises(InputError, match="it has no samples") as caught:
        Arrays(("a.npz",))(seed=0, data_dir=tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "a.npz"))
