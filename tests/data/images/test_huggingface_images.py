"""Images in tables: the same inputs as of the files that the tables were made of, without a network."""

import io
import pickle
import socket
import sys

import attrs
import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from fishr.data import HeldOut, HuggingFaceImages, ImageFolders, PublishedSplits
from fishr.data.images import Preprocessing, cache_images
from fishr.data.images.folder_listing import list_folder
from fishr.data.images.image_tables import TableColumns, list_table
from fishr.errors import InputError

NAMES = ["owl", "dog", "cat"]
FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=NAMES),
        "domain": datasets.Value("string"),
        "extra": datasets.Value("float64"),
    }
)


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """Refuse the network, and keep the package's cache in the test's folder."""

    def refuse(*_, **__):
        raise OSError("the network is not to be used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def table_of(folder, labels=None, domains=None):
    """Return the images of a folder in a table, interleaved by domain."""
    rows = [
        (str(each.images.names[row]), each.classes[row], each.name)
        for row in range(12)
        for each in list_folder(folder)
        if row < len(each.classes)
    ]
    return [
        {
            "image": {"bytes": (folder / path).read_bytes(), "path": None},
            "label": (labels or NAMES.index)(group),
            "domain": (domains or str)(name),
            "extra": 0.5,
        }
        for path, group, name in rows
    ]


def saved(root, rows, features=FEATURES, split="train"):
    """Write a table as the hub has it."""
    place = root / "data" / f"{split}-00000-of-00001.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(place)
    return root


def arrow(root, rows):
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows, features=FEATURES)).save_to_disk(root)


def parquet_file(root, rows):
    datasets.Dataset.from_list(rows, features=FEATURES).to_parquet(root)


@pytest.mark.parametrize("save", [saved, arrow, parquet_file])
@pytest.mark.parametrize("prepare", ["reader", "device"])
def test_a_table_has_the_inputs_of_its_files(folder, tmp_path, save, prepare):
    save(tmp_path / "data" / "table", table_of(folder))
    found = HuggingFaceImages("table", domain="domain", size=12, prepare=prepare)(0, tmp_path / "data")
    files = ImageFolders("animals", size=12, prepare=prepare)(0, tmp_path / "data")
    assert found.class_names == files.class_names == ("cat", "dog", "owl")
    for one, other in zip(found.domains, files.domains, strict=True):
        assert one.name == other.name
        assert torch.equal(one.labels, other.labels)
        rows, seeds = [0, 3, 7], [1, 2, 3]
        assert torch.equal(one.inputs.read(rows), other.inputs.read(rows))
        assert torch.equal(one.inputs.read(rows, seeds), other.inputs.read(rows, seeds))


def test_a_downloaded_data_set_is_found_by_its_name_and_splits_can_be_domains(folder, tmp_path):
    rows = table_of(folder)
    root = tmp_path / "data" / "huggingface" / "zoo" / "animals"
    saved(root, rows[:20])
    saved(root, rows[20:], split="test")
    found = HuggingFaceImages("zoo/animals", size=8)(0, tmp_path / "data")
    assert [(each.name, len(each.labels)) for each in found.domains] == [("test", len(rows) - 20), ("train", 20)]
    (test, _) = list_table(root, TableColumns())
    assert [test.images.encoded(row) for row in range(len(rows) - 20)] == [row["image"]["bytes"] for row in rows[20:]]
    held = HeldOut(HuggingFaceImages("zoo/animals", size=8), test=(0,))(0, tmp_path / "data")
    assert [domain.name for domain in held.training] == ["env1_in"]


def test_published_splits_share_the_numbers_of_classes(folder, tmp_path):
    rows = sorted(table_of(folder), key=lambda row: NAMES[row["label"]])
    root = saved(tmp_path / "animals", rows[8:])
    saved(root, rows[:8], split="test")
    data = PublishedSplits(HuggingFaceImages(str(root), domain="domain", size=8), evaluation=("test",))
    found = data(0, None)
    assert found.class_names == ("cat", "dog", "owl")
    assert {domain.name: set(domain.labels.tolist()) for domain in found.training}["sketch"] == {1, 2}
    assert {domain.name: set(domain.labels.tolist()) for domain in found.evaluation} == {
        "art (test)": {0},
        "photo (test)": {0},
    }
    tested = found.evaluation[0]
    assert tested.environment == "art"
    assert torch.equal(tested.inputs.read([0], [1]), tested.inputs.read([0]))


def test_columns_of_numbers_and_of_bytes(folder, tmp_path):
    features = datasets.Features(
        {
            "image": datasets.Value("binary"),
            "label": datasets.Value("int64"),
            "domain": datasets.ClassLabel(names=["sketch", "photo", "art"]),
            "extra": datasets.Value("float64"),
        }
    )
    rows = table_of(folder, labels=lambda name: {"cat": 2, "dog": 10, "owl": 9}[name], domains=str)
    for row in rows:
        row["image"] = row["image"]["bytes"]
        row["domain"] = features["domain"].str2int(row["domain"])
    saved(tmp_path / "t", rows, features)
    found = HuggingFaceImages("t", domain="domain", size=8)(0, tmp_path)
    assert found.class_names == ("2", "9", "10")
    assert [domain.name for domain in found.domains] == ["art", "photo", "sketch"]


def test_images_are_read_in_a_copy_of_the_process_as_well(folder, tmp_path):
    (_, photo, _) = list_table(saved(tmp_path / "t", table_of(folder)), TableColumns(domain="domain"))
    copy = pickle.loads(pickle.dumps(photo.images))
    assert np.array_equal(np.asarray(copy.read(2)), np.asarray(photo.images.read(2)))


def damaged(rows, row, content):
    rows[row]["image"] = content
    return rows


def png():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"label": "Label"},
            r"train has no column 'Label' \(did you mean label\?\); it has image, label, domain, extra",
        ),
        ({"domain": "site"}, "train has no column 'site'; it has image"),
        ({"domain": "extra"}, "train row 0 has 0.5 as extra, expected a name or a whole number"),
        ({"image": "extra"}, "train has no images in 'extra'"),
        ({"environments": ("clip",)}, "it has no environment 'clip', expected clip; it has art, photo and"),
        ({"splits": ("Train",)}, r"it has no split 'Train' \(did you mean train\?\); it has train"),
        ({"path": "nowhere"}, "nowhere: no such file or folder; give Parquet or Arrow files, or the name of a hub"),
        (
            {"path": "zoo/animals"},
            r"zoo/animals: neither .* exists; run `fishr data download hf:zoo/animals --data-dir",
        ),
        ({"config": "small"}, "cannot be read as a table .*small.*; give Parquet or Arrow files"),
        ({"size": 0}, "size: got 0, expected a whole number of at least 1"),
        ({"splits": ()}, r"splits: got \(\), expected one or more names"),
    ],
)
def test_refusals(folder, tmp_path, changed, reason):
    saved(tmp_path / "t", table_of(folder))
    with pytest.raises(InputError, match=reason) as caught:
        HuggingFaceImages(**{"path": "t", "domain": "domain", "size": 8, **changed})(0, tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_rows_are_named(folder, tmp_path):
    rows = damaged(table_of(folder), 3, None)
    saved(tmp_path / "none", rows)
    with pytest.raises(InputError, match="none: train row 3 has no image; leave such rows out"):
        HuggingFaceImages("none", domain="domain")(0, tmp_path)
    saved(tmp_path / "cut", damaged(rows, 3, {"bytes": png()[:40], "path": None}))
    found = HuggingFaceImages("cut", domain="domain", size=8)(0, tmp_path)
    owner = next(one for one in found.domains if one.name == rows[3]["domain"])
    with pytest.raises(InputError, match=r"cut/train/3: cannot be read as an image"):
        owner.inputs.read(range(len(owner.labels)))
    saved(tmp_path / "label", [{**row, "label": -1} for row in table_of(folder)], split="test")
    saved(tmp_path / "label", table_of(folder))
    data = HuggingFaceImages("label", domain="domain", splits=("train",), size=8)
    assert sum(len(domain.labels) for domain in data(0, tmp_path).domains) == len(rows)
    with pytest.raises(InputError, match="test row 0 has -1 as label, expected a name or a whole number"):
        HuggingFaceImages("label", domain="domain")(0, tmp_path)
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match=r"bad.parquet: cannot be read as a table"):
        HuggingFaceImages("bad.parquet")(0, tmp_path)


def test_without_the_extra_one_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"datasets is not installed; run pip install -e '\.\[hf\]'"):
        HuggingFaceImages("t")(0, tmp_path)


def test_published_splits_need_a_source_with_splits():
    with pytest.raises(InputError, match="source: got ImageFolders, expected one with splits, such as ImageList"):
        PublishedSplits(ImageFolders("animals"), evaluation=("test",))
    with pytest.raises(InputError, match="evaluation: got 'train', which is for training too"):
        PublishedSplits(HuggingFaceImages("t"), evaluation=("train",))
    assert attrs.evolve(HuggingFaceImages("t", splits=("a",)), splits=None).splits is None


def test_a_cache_of_a_table_has_its_images(folder, tmp_path):
    data = HuggingFaceImages(str(saved(tmp_path / "t", table_of(folder))), domain="domain", size=8)
    assert cache_images(data, tmp_path / "a.h5", Preprocessing(8), workers=2)
    assert not cache_images(data, tmp_path / "a.h5", Preprocessing(8), workers=1)
    cached = attrs.evolve(data, path="nowhere", cache=str(tmp_path / "a.h5"))(0, None)
    for one, other in zip(cached.domains, data(0, None).domains, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.inputs.read(range(4)), other.inputs.read(range(4)))
    changed = [{**row, "image": {"bytes": png(), "path": None}} for row in table_of(folder)]
    other = attrs.evolve(data, path=str(saved(tmp_path / "u", changed)))
    with pytest.raises(InputError, match="images_sha256"):
        cache_images(other, tmp_path / "a.h5", Preprocessing(8), workers=1)
