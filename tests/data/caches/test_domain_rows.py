"""Files that are whole, with every hash in place, and hold what no data set has."""

import h5py
import numpy as np
import pytest
import torch

from fishr.analysis.cached_heads import head_of
from fishr.analysis.opening import from_cache
from fishr.data.cached_features import CachedFeatures
from fishr.data.caches import Section, describe, open_features, open_gradients, open_images, verify
from fishr.data.caches.feature_cache import write_features
from fishr.data.caches.hdf5 import save_tree
from fishr.data.images.image_environments import list_cache
from fishr.data.images.preprocessing import Preprocessing
from fishr.errors import InputError

ROWS, FEATURES, CLASSES = 6, 4, 3
NAMES = ("photo", "sketch")
TEXT = '[head]\nkind = "LinearHead"\n[loss]\nkind = "CrossEntropy"\n'
LAYOUT = {"names": ("weight", "bias"), "shapes": {"weight": np.array([CLASSES, FEATURES]), "bias": np.array([CLASSES])}}
SIZE = CLASSES * (FEATURES + 1)


def _columns(*names):
    shapes = {"features": FEATURES, "logits": CLASSES, "deltas": CLASSES, "gradients": SIZE}
    floats = {name: np.ones((ROWS, shapes[name]), np.float32) for name in names if name in shapes}
    return floats | {"labels": np.arange(ROWS) % CLASSES, "ids": np.arange(ROWS)}


def _tree(columns, **more):
    parameters = {"weight": np.ones((CLASSES, FEATURES), np.float32), "bias": np.zeros(CLASSES, np.float32)}
    head = {"text": TEXT, "outputs": CLASSES, "features": FEATURES, "parameters": parameters}
    domains = {str(i): {"name": name, "split": "training"} | columns() for i, name in enumerate(NAMES)}
    provenance = {"step": 3, "dtype": "float32"}
    return {"provenance": provenance, "key": "0123", "head": head, "domains": domains} | more


def _features():
    return "fishr-features", _tree(lambda: _columns("features", "logits"))


def _factors():
    return "fishr-gradients", _tree(lambda: _columns("features", "deltas"), form="factors", layout=LAYOUT)


def _per_sample():
    moments = {"count": ROWS, "mean": np.zeros(SIZE), "variance": np.ones(SIZE)}
    return "fishr-gradients", _tree(lambda: moments | _columns("gradients"), form="per-sample", layout=LAYOUT)


def _moments():
    moments = {"count": ROWS, "mean": np.zeros(SIZE), "variance": np.ones(SIZE)}
    return "fishr-gradients", _tree(lambda: dict(moments), form="moments", layout=LAYOUT)


def _images():
    columns = {"labels": np.arange(ROWS) % CLASSES, "ids": np.arange(ROWS)}
    pixels = {"images": np.zeros((ROWS, 5, 5, 3), np.uint8)}
    paths = {str(i): tuple(f"{row}.png" for row in range(ROWS)) for i in range(len(NAMES))}
    tree = _tree(lambda: pixels | columns, paths=paths)
    return "fishr-images", tree | {
        "provenance": {"size": 5, "resize": "bilinear, antialiased", "classes": ("cat", "dog", "owl")}
    }


def _read(path, kind):
    """As the commands that take such a file do."""
    match kind:
        case "fishr-features":
            CachedFeatures(str(path))(0, None)
            from_cache(path, torch.device("cpu"), "all")
        case "fishr-images":
            list_cache(path, Preprocessing(5))
        case _:
            cache = open_gradients(path)
            cache.moments()
            for index in range(len(cache.sections)):
                cache.domain(index)
            if cache.form == "factors":
                from_cache(path, torch.device("cpu"), "all")


def _reasons(path, kind, tree):
    """What reading and ``verify`` say of the file, each in one line."""
    save_tree(path, kind, tree, replace=True)
    said = []
    for use in (lambda: _read(path, kind), lambda: verify(path)):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        said.append(str(caught.value))
    return said


@pytest.fixture
def path(tmp_path):
    return tmp_path / "forged.h5"


KINDS = [_features, _factors, _per_sample, _moments, _images]


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
def test_what_is_right_is_read(path, make):
    kind, tree = make()
    save_tree(path, kind, tree)
    _read(path, kind)
    assert verify(path) == ()


@pytest.mark.parametrize("make", [_features, _factors, _per_sample, _images])
@pytest.mark.parametrize("label", [-5, CLASSES, 10**12])
def test_labels_that_are_no_classes(path, make, label):
    kind, tree = make()
    tree["domains"]["1"]["labels"] = np.array([0, 1, label, 0, 0, 0])
    expected = f"domain 'sketch': got label {label}, expected whole numbers from 0 to 2, for 3 classes; make it again"
    assert all(expected in reason for reason in _reasons(path, kind, tree))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "column", "what"),
    [
        (_features, "features", "a feature"),
        (_factors, "features", "a feature"),
        (_factors, "deltas", "a derivative"),
        (_per_sample, "gradients", "a gradient"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite(path, make, column, what, value, monkeypatch):
    kind, tree = make()
    wrong = np.ones_like(tree["domains"]["1"][column])
    wrong[4, 1] = value
    tree["domains"]["1"][column] = wrong
    monkeypatch.setattr("fishr.data.caches.description._BYTES", 100)
    for reason in _reasons(path, kind, tree):
        assert f"domain 'sketch': {what} of row 4 is NaN, infinite" in reason
    if kind == "fishr-features":
        open_features(path).domain(1, 0, 4)
        with pytest.raises(InputError, match="row 4"):
            open_features(path).domain(1, 3)


@pytest.mark.parametrize("make", [_moments, _per_sample])
@pytest.mark.parametrize(
    ("name", "values", "part"),
    [
        ("mean", np.full(SIZE, np.nan), "mean has values that cannot be"),
        ("variance", np.full(SIZE, -1.0), "variance has values that cannot be"),
        ("variance", np.ones(SIZE + 1), "variance has shape [16], expected [15]"),
        ("count", -3, "split 'training' and -3 rows"),
    ],
)
def test_moments_that_cannot_be(path, make, name, values, part):
    kind, tree = make()
    tree["domains"]["0"][name] = values
    assert all(part in reason for reason in _reasons(path, kind, tree))


@pytest.mark.parametrize(
    ("make", "column", "values"),
    [
        (_features, "features", np.ones((ROWS, FEATURES + 1), np.float32)),
        (_features, "features", np.ones((ROWS + 1, FEATURES), np.float32)),
        (_features, "features", np.ones((ROWS, FEATURES), np.int64)),
        (_features, "logits", np.ones((ROWS, 2), np.float32)),
        (_features, "labels", np.zeros((ROWS, 1), np.int64)),
        (_features, "labels", np.zeros(ROWS)),
        (_factors, "deltas", np.ones((ROWS, 2), np.float32)),
        (_per_sample, "gradients", np.ones((ROWS, SIZE - 1), np.float32)),
        (_images, "images", np.zeros((ROWS, 5, 4, 3), np.uint8)),
        (_images, "images", np.zeros((ROWS, 5, 5, 3), np.float32)),
    ],
)
def test_columns_of_another_type_or_shape(path, make, column, values):
    kind, tree = make()
    tree["domains"]["1"][column] = values
    assert all("damaged (/domains/1" in reason for reason in _reasons(path, kind, tree))


@pytest.mark.slow
@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda tree: tree["domains"]["1"].update(name="photo"), "two have one name"),
        (lambda tree: tree["domains"]["1"].update(name=3), "got name 3, split 'training' and 6 rows"),
        (lambda tree: tree["domains"]["1"].update(split="test"), "split 'test'"),
        (lambda tree: tree["domains"].update({"3": tree["domains"].pop("1")}), "not numbered from 0"),
        (lambda tree: tree["domains"].update(extra={}), "damaged"),
        (lambda tree: tree.update(domains={}), "damaged (it has no domain)"),
        (lambda tree: tree.update(provenance="mine"), "damaged"),
        (lambda tree: tree["provenance"].update(step=np.ones(3)), "/provenance/step is no text, number or list"),
        (lambda tree: tree.update(key=3), "/key is 3, not text"),
        (lambda tree: tree.update(head="mine", provenance={}), "damaged"),
    ],
)
def test_structures_that_are_none(path, make, change, part):
    kind, tree = make()
    change(tree)
    assert all(part in reason for reason in _reasons(path, kind, tree))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda head: head.update(outputs=-1), "head/outputs is -1, not a whole number of at least 1"),
        (lambda head: head.update(outputs=10**9), "expected [1000000000]"),
        (lambda head: head.update(features=10**9), "expected [1000000000]"),
        (lambda head: head.pop("features"), "it describes no head ('features')"),
        (lambda head: head.update(text=3), "it describes no head (its text"),
        (lambda head: head.pop("parameters"), "it describes no head ('parameters')"),
        (lambda head: head.update(parameters=()), "it describes no head"),
        (lambda head: head["parameters"].update(bias=np.full(CLASSES, np.nan)), "parameter bias has NaN"),
        (lambda head: head["parameters"].pop("bias"), "parameters are not those of LinearHead"),
        (
            lambda head: head.update(text=TEXT.replace('"LinearHead"', '"MLPHead"\nwidths = [1000000000]')),
            "parameters are not those of MLPHead",
        ),
    ],
)
def test_heads_that_are_none(path, change, part):
    kind, tree = _features()
    change(tree["head"])
    save_tree(path, kind, tree)
    with pytest.raises(InputError) as caught:
        head_of(open_features(path))
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"classes": ("cat", "dog")}, "got label 2, expected whole numbers from 0 to 1"),
        ({"classes": "cat"}, "provenance/classes is no list of names"),
        ({"size": "5"}, "provenance/size is '5', not a whole number of at least 1"),
        ({"size": 6}, "/domains/0/images has rows of shape [5, 5, 3], expected [6, 6, 3]"),
    ],
)
def test_images_of_other_classes_or_sizes(path, change, part):
    kind, tree = _images()
    tree["provenance"] |= change
    save_tree(path, kind, tree)
    for use in (open_images, verify):
        with pytest.raises(InputError) as caught:
            use(path)
        assert part in str(caught.value)


def test_paths_for_other_images(path):
    kind, tree = _images()
    tree["paths"]["1"] = ("0.png",)
    assert all("/paths/1 has no path for each of 6 images" in reason for reason in _reasons(path, kind, tree))


def test_a_type_that_features_cannot_have(path):
    with pytest.raises(InputError, match="got features of type None, expected 'float32' or 'float16'"):
        write_features(path, {}, {"outputs": CLASSES}, [Section("photo", "training", ROWS)], None, part_rows=ROWS)


def test_features_that_are_not_finite_are_not_written(path):
    def compute(domain, start, stop):
        rows = _columns("features", "logits")
        rows["features"][2, 1] = np.nan
        return rows

    sections = [Section("photo", "training", ROWS)]
    with pytest.raises(InputError, match="domain 'photo': a feature of row 2 is NaN"):
        write_features(path, {"dtype": "float32"}, {"outputs": CLASSES}, sections, compute, part_rows=ROWS)
    assert not path.exists()


def test_an_attribute_of_any_size_is_not_read(path):
    """A forged attribute of ours counts as absent; those of other programs are not read."""
    kind, tree = _features()
    save_tree(path, kind, tree)
    with h5py.File(path, "r+") as file:
        file.attrs["mine"] = np.zeros(1 << 20)
    assert verify(path) == ()
    assert describe(path).header.kind == kind
    with h5py.File(path, "r+") as file:
        file.attrs["library"] = np.bytes_(b"x" * (1 << 20))
    with pytest.raises(InputError, match="it does not say what it is"):
        open_features(path)
