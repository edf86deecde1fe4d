"""Lists with columns of any names."""

import csv

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fishr.configuration import ConfigurationError, structure, unstructure
from fishr.data import HeldOut, ImageList, PublishedSplits
from fishr.data.images import Columns, Preprocessing, cache_images
from fishr.data.images.list_files import list_file
from fishr.errors import InputError

WILDS = """,split,location,image_id,y,filename,note
0,train,7,a,0,a.jpg,"x, y"
1,test,10,b,12,b.jpg,
2,train,7,c,2,c.jpg,
"""
COLUMNS = Columns("train/{filename}", "y", "location", "split")


def test_a_list_of_wilds_with_a_folder_in_its_paths(tmp_path):
    (tmp_path / "metadata.csv").write_text(WILDS)
    ten, seven = list_file(tmp_path / "metadata.csv", columns=COLUMNS)
    assert (ten.name, ten.images.names, ten.classes, ten.splits) == ("10", ("train/b.jpg",), ("12",), ("test",))
    assert (seven.name, seven.images.names) == ("7", ("train/a.jpg", "train/c.jpg"))
    assert (seven.classes, seven.splits) == (("0", "2"), ("train", "train"))
    assert seven.paths()[0] == tmp_path / "train" / "a.jpg"


def test_a_path_of_several_columns(tmp_path):
    (tmp_path / "a.csv").write_text("patient,node,x,tumor\n004,1,33,1\n")
    columns = Columns("patches/patient_{patient}_node_{node}/{x}.png", "tumor")
    (one,) = list_file(tmp_path / "a.csv", columns=columns)
    assert (one.name, one.images.names) == ("a", ("patches/patient_004_node_1/33.png",))
    assert columns.names == ("tumor", "patient", "node", "x")


def test_numbers_in_json_are_texts(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"path": "1.png", "label": 3, "domain": 0}\n')
    (one,) = list_file(tmp_path / "a.jsonl")
    assert (one.name, one.classes) == ("0", ("3",))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"label": "Y"}, r"it lacks Y \(did you mean y\?\); correct the header, or name the columns"),
        ({"path": "train/{file}"}, r"it lacks file \(did you mean filename\?\)"),
        ({"domain": "hospital"}, "got the header ,split,location,image_id,y,filename,note, expected hospital,y,split,"),
        ({"label": "note"}, "line 3: got nothing as note, expected text or a whole number"),
        ({"path": "{y"}, r"columns: got path = '\{y', expected a column or columns in braces"),
        ({"path": "a/{}"}, "columns: got an empty name in"),
        ({"domain": ""}, "columns: got an empty name in"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, changed, reason):
    (tmp_path / "metadata.csv").write_text(WILDS)
    with pytest.raises(InputError, match=reason) as caught:
        list_file(tmp_path / "metadata.csv", columns=attrs.evolve(COLUMNS, **changed))
    assert "\n" not in str(caught.value)


def test_a_key_of_json_that_is_spelled_differently(tmp_path):
    (tmp_path / "a.json").write_text('[{"path": "1.png", "Label": "cat", "domain": "art"}]')
    with pytest.raises(InputError, match=r"entry 1: got nothing as label \(did you mean Label\?\), expected text"):
        list_file(tmp_path / "a.json", columns=Columns(label="label", domain="domain"))


@pytest.fixture
def wilds(tmp_path, draw):
    """Return a list of twelve images with numbers as classes and a split each, in the layout of WILDS."""
    lines = ["name,y,site,split"]
    for number in range(12):
        draw(tmp_path / "images" / f"{number}.png", number)
        lines.append(f"{number}.png,{(9, 10, 2)[number % 3]},{number // 6},{'test' if number % 6 > 3 else 'train'}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    columns = Columns("images/{name}", "y", "site", "split")
    return ImageList("metadata.csv", size=8, columns=columns)


def test_classes_that_are_numbers_are_sorted_by_value(wilds, tmp_path):
    found = wilds(0, tmp_path)
    assert found.class_names == ("2", "9", "10")
    assert found.domains[0].labels.tolist() == [1, 2, 0, 1, 2, 0]


def test_splits_choose_images_and_keep_the_numbers_of_classes(wilds, tmp_path):
    found = attrs.evolve(wilds, splits=("test",))(0, tmp_path)
    assert found.class_names == ("2", "9", "10")
    assert [domain.labels.tolist() for domain in found.domains] == [[2, 0], [2, 0]]
    few = attrs.evolve(wilds, splits=("train",), samples=2)(0, tmp_path)
    assert [len(domain.labels) for domain in few.domains] == [2, 2]
    published = PublishedSplits(wilds, evaluation=("test",))(0, tmp_path)
    assert [domain.name for domain in published.evaluation] == ["0 (test)", "1 (test)"]


def test_an_environment_without_images_of_a_split_is_left_out(wilds, tmp_path):
    text = (tmp_path / "metadata.csv").read_text()
    (tmp_path / "metadata.csv").write_text(text.replace("1,test", "1,val"))
    assert [each.name for each in attrs.evolve(wilds, splits=("val",))(0, tmp_path).domains] == ["1"]
    assert [each.name for each in wilds(0, tmp_path).domains] == ["0", "1"]


def test_splits_of_a_cache_are_those_of_its_list(wilds, tmp_path):
    assert cache_images(wilds, tmp_path / "a.h5", Preprocessing(8), workers=1, data_dir=tmp_path)
    cached = attrs.evolve(wilds, cache="a.h5", splits=("test",))(0, tmp_path)
    listed = attrs.evolve(wilds, splits=("test",))(0, tmp_path)
    for one, other in zip(cached.domains, listed.domains, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.inputs.read([0, 1]), other.inputs.read([0, 1]))


def test_splits_that_are_none(wilds, tmp_path):
    with pytest.raises(
        InputError, match=r"metadata.csv: it has no split 'tets' \(did you mean test\?\); it has test, tr"
    ):
        attrs.evolve(wilds, splits=("tets",))(0, tmp_path)
    bare = attrs.evolve(wilds, columns=Columns("images/{name}", "y", "site"), splits=("test",))
    with pytest.raises(InputError, match=r"it has no split 'test'; name their column in columns.split"):
        bare(0, tmp_path)


def test_columns_read_back_from_toml(wilds):
    table = unstructure(wilds)
    assert table["columns"] == {"path": "images/{name}", "label": "y", "domain": "site", "split": "split"}
    assert structure(table, ImageList) == wilds
    with pytest.raises(ConfigurationError, match=r"columns.*lable.*did you mean"):
        structure({**table, "columns": {"lable": "y"}}, ImageList)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="{}"), min_size=1)


@pytest.mark.slow
@settings(max_examples=30)
@given(names=st.lists(NAMES, min_size=5, max_size=5, unique=True), order=st.permutations(range(5)))
def test_names_and_order_of_columns_and_other_columns_do_not_matter(tmp_path_factory, names, order):
    image, label, domain, split, other = names
    rows = [
        {image: f"{row}.png", label: f"c{row % 2}", domain: row % 3, split: "a", other: "x,\ny"} for row in range(6)
    ]
    path = tmp_path_factory.mktemp("lists") / "list.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [names[index] for index in order])
        writer.writeheader()
        writer.writerows(rows)
    found = list_file(path, columns=Columns(image, label, domain, split))
    assert [each.name for each in found] == ["0", "1", "2"]
    for number, each in enumerate(found):
        assert each.images.names == (f"{number}.png", f"{number + 3}.png")
        assert each.classes == (f"c{number % 2}", f"c{(number + 3) % 2}")


@pytest.mark.parametrize("cached", [False, True])
def test_the_images_of_a_patient_stay_together(folder, tmp_path, cached):
    """Also those of a cache, which keeps no patients: they are read from the list."""
    rows = ["file,y,site,patient"]
    for number, path in enumerate(sorted(folder.glob("*/*/*"))):
        rows.append(f"{path},{path.parent.name},{path.parts[-3]},p{number % 3}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    columns = Columns("file", "y", "site", group="patient")
    source = ImageList(str(tmp_path / "list.csv"), size=8, augment=False, columns=columns)
    if cached:
        cache_images(source, tmp_path / "images.h5", Preprocessing(8), 1)
        source = attrs.evolve(source, cache=str(tmp_path / "images.h5"))
    patients = {row["file"]: row["patient"] for row in csv.DictReader(rows)}
    made = HeldOut(source, test=(0,), holdout_fraction=0.4)(0, None)
    for site in {part.environment for part, _ in made.by_split}:
        names = [one.inputs.images.names for one, _ in made.by_split if one.environment == site]
        taken = [one.inputs.rows for one, _ in made.by_split if one.environment == site]
        first, second = ({patients[n[row]] for row in rows} for n, rows in zip(names, taken, strict=True))
        assert first
        assert second
        assert not first & second
