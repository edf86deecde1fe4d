"""Data that cannot be used: one line on stderr, exit code 2, nothing created and nothing changed."""

import gzip
import struct

import numpy as np
import pytest

from fishr.configuration import dumps
from fishr.protocols import colored_digits


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with every kind of bad data file, each under its own name."""
    home = tmp_path_factory.mktemp("world")
    _mnist(home)
    _arrays(home)
    return home


PICTURES = struct.pack(">4I", 2051, 60_000, 28, 28)
LABELS = struct.pack(">2I", 2049, 60_000) + bytes(60_000)


def _mnist(home):
    def folder(name, pictures=PICTURES, labels=LABELS, suffix=""):
        raw = home / name / "MNIST" / "raw"
        raw.mkdir(parents=True)
        (raw / f"train-images-idx3-ubyte{suffix}").write_bytes(pictures)
        (raw / "train-labels-idx1-ubyte").write_bytes(labels)

    folder("mnist-cut", PICTURES + bytes(1000 * 784))
    folder("mnist-html", b"<html>404 not found</html>")
    folder("mnist-labels", labels=struct.pack(">2I", 2049, 60_000) + bytes([10]) * 60_000)
    folder("mnist-empty", b"")
    folder("mnist-gz", b"\x1f\x8b\x08 not gzip after all", suffix=".gz")
    folder("mnist-gz-cut", gzip.compress(PICTURES + bytes(99_999), mtime=0)[:-20], suffix=".gz")
    folder("mnist-swapped", pictures=LABELS, labels=PICTURES)
    folder("mnist-few", struct.pack(">4I", 2051, 2, 28, 28) + bytes(2 * 784), struct.pack(">2I", 2049, 2) + bytes(2))
    (home / "mnist-half" / "MNIST" / "raw").mkdir(parents=True)
    (home / "mnist-half" / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(PICTURES)


def _arrays(home):
    random = np.random.default_rng(0)
    inputs, labels = random.normal(size=(6, 3)), np.array([0, 1, 0, 1, 0, 1])
    files = {
        "good": {"inputs": inputs, "labels": labels},
        "more": {"inputs": inputs + 1, "labels": labels},
        "pickled": {"inputs": np.array([{"a": 1}] * 6), "labels": labels},
        "nan": {"inputs": np.where(inputs > 1, np.nan, inputs) * np.array([1, 1, np.nan]), "labels": labels},
        "lengths": {"inputs": inputs, "labels": labels[:5]},
        "names": {"x": inputs, "y": labels},
        "wide": {"inputs": np.zeros((6, 4)), "labels": labels},
        "text": {"inputs": inputs, "labels": np.array(list("abcdef"))},
        "half": {"inputs": inputs, "labels": labels + 0.5},
        "none": {"inputs": inputs[:0], "labels": labels[:0]},
    }
    for name, arrays in files.items():
        np.savez(home / f"{name}.npz", **arrays)
    (home / "cut.npz").write_bytes((home / "good.npz").read_bytes()[:-30])
    text = dumps(colored_digits())
    data = text[text.index("[data]") : text.index("[featurizer]")]
    arrays = '[data]\nkind = "Arrays"\ntraining = ["good.npz", "FILE.npz"]\nclasses = 2\n\n'
    (home / "arrays.toml").write_text(text.replace(data, arrays))


def _train(*options):
    return ["train", *options, "--out", "new"]


def _mnist_in(folder):
    return _train("colored-mnist", "--data-dir", folder)


def _arrays_of(name, *more):
    return [
        "train",
        "arrays.toml",
        "--data-dir",
        ".",
        "--set",
        f"data.training=['good.npz', '{name}.npz']",
        *more,
        "--out",
        "new",
    ]


REFUSED = {
    "MNIST is not there": (_train("colored-mnist"), "MNIST: found no train-images-idx3-ubyte (or .gz) and no train-l"),
    "half of MNIST": (_mnist_in("mnist-half"), "MNIST: found no train-labels-idx1-ubyte (or .gz) in mnist-half/MNIST"),
    "MNIST cut short": (_mnist_in("mnist-cut"), "train-images-idx3-ubyte: truncated, got 784000 bytes"),
    "MNIST is HTML": (_mnist_in("mnist-html"), "magic number is 1013478509, expected 2051"),
    "MNIST's labels": (_mnist_in("mnist-labels"), "got label 10, expected digits from 0 to 9"),
    "MNIST is empty": (_mnist_in("mnist-empty"), "truncated, 0 bytes are less than an MNIST header"),
    "MNIST, bad gzip": (_mnist_in("mnist-gz"), "not a whole gzip file"),
    "MNIST, gzip cut short": (_mnist_in("mnist-gz-cut"), "truncated, the compressed data ends early"),
    "MNIST, files swapped": (_mnist_in("mnist-swapped"), "magic number is 2051, expected 2049"),
    "MNIST, two pictures": (_mnist_in("mnist-few"), "training_images: got 50000, expected at most 1"),
    ".npz missing": (_arrays_of("none-such"), "none-such.npz: there is no such file"),
    ".npz with pickles": (_arrays_of("pickled"), "pickled.npz: it holds pickled objects, which are never loaded"),
    ".npz with NaN": (_arrays_of("nan"), "nan.npz: an input of row 0 is NaN"),
    ".npz, lengths": (_arrays_of("lengths"), "lengths.npz: 6 inputs but 5 labels"),
    ".npz, names": (_arrays_of("names"), "names.npz: it has no array 'inputs' but x, y"),
    ".npz, shapes": (_arrays_of("wide"), "one input has shape [4], expected [3]"),
    ".npz, labels of text": (_arrays_of("text"), "text.npz: labels are <U1, expected an array of whole numbers"),
    ".npz, labels between": (_arrays_of("half"), "half.npz: got label 0.5, expected whole numbers from 0"),
    ".npz without rows": (_arrays_of("none"), "none.npz: "),
    ".npz cut short": (_arrays_of("cut"), "cut.npz: not an .npz file"),
    ".npz twice": (_arrays_of("good"), "two are called 'good'; give each a name of its own"),
    "three classes for two outputs": (
        _arrays_of("more", "--set", "data.classes=3"),
        "binary cross-entropy: got 3 classes, expected 2; use CrossEntropy()",
    ),
    "two labels for no class": (_arrays_of("more", "--set", "data.classes=0"), "classes: got 0, expected at least 2"),
    "reproduce without MNIST": (["reproduce", "colored-mnist"], "MNIST: found no"),
    "explain without MNIST": (["explain", "colored-mnist"], "MNIST: found no"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refused, world, name):
    refused(world, *REFUSED[name])


@pytest.mark.slow
def test_the_good_files_are_good(call, monkeypatch, world, home):
    """What the refused folders differ in is what they were refused for."""
    options = _arrays_of("more", "--set", "steps=1", "--set", "featurizer.widths=[2]", "--data-dir", str(world))
    assert call("train", str(world / "arrays.toml"), *options[2:]).code == 0
