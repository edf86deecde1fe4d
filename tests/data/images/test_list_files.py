import json

import pytest
import torch

from fishr.data.images import ImageFolders, ImageList
from fishr.data.images.folder_listing import list_folder
from fishr.errors import InputError

HEADER = "environment,class,path\n"


def _entries(folder):
    return [
        {"environment": each.name, "class": group, "path": f"{folder.name}/{name}"}
        for each in list_folder(folder)
        for name, group in zip(each.images.names, each.classes, strict=True)
    ]


def _write(path, entries):
    match path.suffix:
        case ".csv":
            lines = [f'"{e["environment"]}",{e["class"]},{e["path"]}\n' for e in entries]
            path.write_text("\ufeff" + HEADER + "".join(lines) + "\n")
        case ".json":
            path.write_text(json.dumps(entries, indent=1))
        case _:
            path.write_text("\n".join(map(json.dumps, entries)) + "\n\n")
    return path


@pytest.mark.parametrize("name", ["all.csv", "all.json", "all.jsonl"])
def test_a_list_is_the_folder_it_lists(folder, name):
    path = _write(folder.parent / name, _entries(folder))
    listed = ImageList(name, size=12)(0, folder.parent)
    laid = ImageFolders("animals", size=12)(0, folder.parent)
    assert listed.classes == laid.classes == 3
    for one, other in zip(listed.domains, laid.domains, strict=True):
        assert one.name == other.name
        assert torch.equal(one.labels, other.labels)
        rows, seeds = [0, 3, 5], [1, 2, 3]
        assert torch.equal(one.inputs.read(rows, seeds), other.inputs.read(rows, seeds))
    absolute = ImageList(str(path), size=12, samples=4, environments=("photo",))(0, folder / "nowhere")
    assert [(domain.name, len(domain.labels)) for domain in absolute.domains] == [("photo", 4)]


def test_paths_may_be_absolute_and_rows_keep_their_order(folder, tmp_path):
    entries = _entries(folder)[::-1]
    for entry in entries:
        entry["path"] = str(folder.parent / entry["path"])
    path = _write(tmp_path / "elsewhere.csv", entries)
    made = ImageList(str(path), size=8)(0, None)
    assert [domain.name for domain in made.domains] == ["art", "photo", "sketch"]
    assert made.domains[0].labels.tolist() == [2] * 4 + [1] * 4 + [0] * 4


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "", "a.csv: line 1: got the header nothing, expected environment,class,path"),
        ("a.csv", "env,class,path\n", "line 1: got the header env,class,path, .*; it lacks environment"),
        ("a.csv", HEADER, "a.csv: it lists no image"),
        ("a.csv", HEADER + "n,ill,1.png\nn,,2.png\n", "a.csv: line 3: got nothing as class, expected text"),
        ("a.csv", HEADER + "n,ill,1.png\nn,ill\n", "line 3: got nothing as path"),
        ("a.csv", HEADER + "\n\nn,ill,1.png,4\n", "line 4: got more values than the header has names"),
        ("a.csv", HEADER + 'n,ill,"1.png\n', "line 2: no CSV"),
        ("a.csv", HEADER + "n,ill,1.png\ns,ill,1.png\n", "line 3: '1.png' is listed already in line 2"),
        ("a.json", "{}", "a.json: got a JSON object, expected a list of objects"),
        ("a.json", '[\n{"environment": "n"}\n', r"a.json: line 3: no JSON \("),
        ("a.json", '[{"environment": "n", "class": 3.5, "path": "1.png"}]', "entry 1: got 3.5 as class, expected text"),
        ("a.json", '[["n", "ill", "1.png"]]', "entry 1: got a list, expected an object with environment, class"),
        ("a.jsonl", '\n{"environment": "n", "class": "ill"}\n', "line 2: got nothing as path, expected text"),
        ("a.jsonl", '{"environment": "n",\n', "a.jsonl: line 1: no JSON"),
        ("a.json", "[" * 100_000, "a.json: line 1: no JSON"),
        ("a.txt", "x", "a.txt: got a list called 'a.txt'; give a .csv, .json or .jsonl"),
        ("a.csv", b"\xff\xfe", "a.csv: got bytes that are no UTF-8 at 0; save it as UTF-8"),
        ("a.csv", HEADER + "n,ill,1.png\n", "a.csv: got the class 'ill' alone"),
        (
            "a.csv",
            HEADER + "n,ill,w\\1.png\nn,well,w\\2.png\n",
            r"2 of 2 images .*; write / instead of \\ in their paths",
        ),
        ("a.csv", HEADER + "n,ill,1.png\nn,well,2.png\n", r"2 of 2 images cannot be read: .*1\.png \(No such file"),
    ],
)
def test_what_is_no_list_is_refused_with_its_line(tmp_path, name, text, reason):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=reason) as caught:
        ImageList(name, size=8)(0, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("separator", [", ", ";", "\t"])
def test_a_list_may_be_written_by_a_spreadsheet(folder, separator):
    path = _write(folder.parent / "all.csv", _entries(folder))
    path.write_text(path.read_text().replace(",", separator).replace("\n", "\r\n"))
    made = ImageList("all.csv", size=8)(0, folder.parent)
    laid = ImageFolders("animals", size=8)(0, folder.parent)
    assert made.class_names == laid.class_names
    for one, other in zip(made.domains, laid.domains, strict=True):
        assert (one.name, one.labels.tolist()) == (other.name, other.labels.tolist())


def test_an_environment_that_is_not_listed(folder):
    path = _write(folder.parent / "all.csv", _entries(folder))
    with pytest.raises(InputError, match=r"all.csv: it has no environment 'clip', expected clip; it has art, photo"):
        ImageList(str(path), environments=("clip",))(0, None)
    with pytest.raises(InputError, match="size: got 0"):
        ImageList("all.csv", size=0)


def test_a_missing_list_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match=r"wards\.csv: no such file; give a \.csv, \.json or \.jsonl with environment"):
        ImageList("wards.csv")(0, tmp_path)
