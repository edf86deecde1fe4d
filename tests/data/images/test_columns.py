"""Lists with columns of any names."""

import attrs
import pytest

from fishr.data.images.list_files import Columns, list_file
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
