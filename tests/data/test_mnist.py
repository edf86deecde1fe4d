import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from fishr.data.mnist import ColoredMNIST
from fishr.data.mnist_files import IMAGES, LABELS
from fishr.errors import InputError

COUNT = 60
PIXELS = np.random.default_rng(1).integers(1, 256, (COUNT, 28, 28), np.uint8)
DIGITS = np.random.default_rng(2).integers(0, 10, COUNT, np.uint8)
SMALL = ColoredMNIST(training_images=40)


def write(folder: Path, count: int = COUNT, labels: int = COUNT, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images = struct.pack(">4I", 2051, count, 28, 28) + PIXELS[:count].tobytes()
    digits = struct.pack(">2I", 2049, labels) + DIGITS[:labels].tobytes()
    for name, content in ((IMAGES, images), (LABELS, digits)):
        path = folder / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(content, mtime=0) if packed else content)


def same(one, other) -> bool:
    pairs = zip((*one.training, *one.evaluation), (*other.training, *other.evaluation), strict=True)
    return all(torch.equal(a.inputs, b.inputs) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_every_layout_gives_the_same_domains(tmp_path: Path):
    write(tmp_path / "a" / "MNIST" / "raw")
    write(tmp_path / "b" / "MNIST" / "raw", packed=True)
    write(tmp_path / "c")
    write(tmp_path / "d", packed=True)
    first = SMALL(seed=0, data_dir=tmp_path / "a")
    assert first.shape == (2, 14, 14)
    for other in "bcd":
        assert same(first, SMALL(seed=0, data_dir=tmp_path / other))
    assert not same(first, SMALL(seed=1, data_dir=tmp_path / "a"))


def test_domains_equal_the_protocol_written_out_in_numpy(tmp_path: Path):
    write(tmp_path)
    made = SMALL(seed=3, data_dir=tmp_path)
    draws = torch.Generator().manual_seed(3)
    order = torch.randperm(40, generator=draws).numpy()
    parts = zip(
        (*made.training, made.evaluation[0]),
        (order[::2], order[1::2], np.arange(40, COUNT)),
        (0.2, 0.1, 0.9),
        strict=True,
    )
    for domain, rows, flip in parts:
        images = PIXELS[rows][:, ::2, ::2].astype(np.float32) / 255
        labels = (DIGITS[rows] < 5) ^ (torch.rand(len(rows), generator=draws).numpy() < 0.25)
        colors = labels ^ (torch.rand(len(rows), generator=draws).numpy() < flip)
        expected = np.stack([images, images], axis=1)
        expected[np.arange(len(rows)), 1 - colors.astype(int)] = 0
        assert np.array_equal(domain.inputs.numpy(), expected)
        assert np.array_equal(domain.labels.numpy(), labels)


def test_the_default_folder_is_data(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="fishr data download mnist --data-dir data`"):
        SMALL(seed=0, data_dir=None)
    write(tmp_path / "data" / "MNIST" / "raw")
    assert SMALL(seed=0, data_dir=None).classes == 2


def test_missing_files_are_named_with_places_and_remedies(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        SMALL(seed=0, data_dir=tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    assert str(caught.value) == (
        f"MNIST: found no train-images-idx3-ubyte (or .gz) and no train-labels-idx1-ubyte (or .gz) in {raw} or in "
        f"{tmp_path}; run `fishr data download mnist --data-dir {tmp_path}`, or copy torchvision's MNIST/raw folder "
        f"to {raw}"
    )


def test_only_the_missing_file_is_named(tmp_path: Path):
    write(tmp_path)
    (tmp_path / IMAGES).unlink()
    with pytest.raises(InputError, match=f"found no {IMAGES} ") as caught:
        SMALL(seed=0, data_dir=tmp_path)
    assert LABELS not in str(caught.value)


def test_images_and_labels_of_different_length_are_refused(tmp_path: Path):
    write(tmp_path, count=50)
    with pytest.raises(InputError, match=r"50 images but 60 labels"):
        SMALL(seed=0, data_dir=tmp_path)


def test_a_file_that_leaves_nothing_to_evaluate_is_refused(tmp_path: Path):
    write(tmp_path)
    with pytest.raises(InputError, match="training_images: got 50000, expected at most 59: there are 60 images"):
        ColoredMNIST()(seed=0, data_dir=tmp_path)


def test_a_truncated_file_is_refused(tmp_path: Path):
    write(tmp_path)
    path = tmp_path / IMAGES
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=f"{IMAGES}: truncated"):
        SMALL(seed=0, data_dir=tmp_path)


def test_wrong_probabilities_are_refused_at_once():
    with pytest.raises(InputError, match="label_noise: got 2, expected a probability"):
        ColoredMNIST(label_noise=2)


def test_real_mnist_makes_the_domains_of_the_protocol(mnist_dir: Path):
    domains = ColoredMNIST()(seed=0, data_dir=mnist_dir)
    found = [(domain.name, tuple(domain.inputs.shape)) for domain in (*domains.training, *domains.evaluation)]
    assert found == [
        ("flip 0.2", (25_000, 2, 14, 14)),
        ("flip 0.1", (25_000, 2, 14, 14)),
        ("reversed", (10_000, 2, 14, 14)),
        ("gray", (10_000, 2, 14, 14)),
    ]
    for domain, flip in zip((*domains.training, domains.evaluation[0]), (0.2, 0.1, 0.9), strict=True):
        colors = domain.inputs.sum(dim=(2, 3)).argmax(dim=1)
        disagreement = (colors != domain.labels).double().mean().item()
        assert abs(disagreement - flip) < 5 * (flip * (1 - flip) / len(colors)) ** 0.5
        assert domain.inputs.max() == 1


def test_real_mnist_without_label_noise_counts_the_digits_below_five(mnist_dir: Path):
    # MNIST's training file has 5923, 6742, 5958, 6131, 5842 images of the digits 0 to 4.
    domains = ColoredMNIST(label_noise=0.0)(seed=0, data_dir=mnist_dir)
    labels = torch.cat([domain.labels for domain in (*domains.training, domains.evaluation[0])])
    assert labels.sum() == 5923 + 6742 + 5958 + 6131 + 5842
