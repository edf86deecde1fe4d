"""``fishr predict`` and ``fishr export`` on a run of images, its data gone."""

import csv
import json
import re
import shutil

import pytest


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_classifies_a_folder_without_the_data(call, moved):
    said = call("predict", "run", "photos", "-o", "p.csv", "--device", "cpu")
    assert (said.code, said.out, said.err) == (0, "predictions: p.csv (8 images)\n", "")
    rows = rows_of(moved / "p.csv")
    assert [row["path"] for row in rows] == sorted(str(p.relative_to(moved)) for p in moved.glob("photos/*/*/*.png"))
    for row in rows:
        assert row["class"] == max(("cat", "dog"), key=lambda name: float(row[f"p_{name}"]))
        assert float(row["p_cat"]) + float(row["p_dog"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("scans.csv", "path\nart/cat/0.png\nphoto/dog/5.png\n", ()),
        ("scans.csv", "kind;of;file\ncat;art;0.png\ndog;photo;5.png\n", ("--columns", "{of}/{kind}/{file}")),
        ("scans.jsonl", '{"path": "art/cat/0.png"}\n{"path": "photo/dog/5.png", "class": "?"}\n', ()),
    ],
)
def test_it_classifies_the_images_of_a_list_without_classes(call, moved, name, text, options):
    (moved / "photos" / name).write_text(text)
    said = call("predict", "run", f"photos/{name}", "photos/art/cat/2.png", "-o", "p.csv", *options)
    assert (said.code, said.err) == (0, "")
    expected = [f"photos/{image}" for image in ("art/cat/0.png", "photo/dog/5.png", "art/cat/2.png")]
    assert [row["path"] for row in rows_of(moved / "p.csv")] == expected


@pytest.mark.parametrize("arguments", [("-o", "p.parquet"), ("-o", "p.table", "--as", "parquet")])
def test_parquet_by_name_or_by_option(call, moved, arguments):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert call("predict", "run", "photos", *arguments).code == 0
    assert parquet.read_table(moved / arguments[1]).num_rows == 8


def test_files_that_are_no_images_are_named(call, moved):
    (moved / "photos" / "art" / "cat" / "bad.png").write_text("no image")
    said = call("predict", "run", "photos", "-o", "p.csv")
    assert said.code == 1
    assert said.err == (
        "Error: p.csv: has no row for 1 of 9 files, which cannot be read as images: "
        "photos/art/cat/bad.png (not an image)\n"
    )
    assert len(rows_of(moved / "p.csv")) == 8


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("predict", "run", "nowhere", "-o", "p.csv"), "nowhere: no such file or folder"),
        (
            ("predict", "run", "data", "-o", "p.csv"),
            "data: got no image that can be read; give images, folders or lists",
        ),
        (
            ("predict", "run", "photos/list.csv", "-o", "p.csv"),
            "line 1: got the header file, expected path; it lacks path",
        ),
        (("predict", "photos", "photos", "-o", "p.csv"), "photos: not a run folder, it has no config.toml"),
        (("predict", "run", "photos", "-o", "run.toml"), "run.toml: exists already; choose another name"),
        (("predict", "run", "photos", "-o", "run.toml/p.csv"), "run.toml/p.csv: cannot be created"),
        (("predict", "run", "photos", "-o", "none/p.csv"), "none/p.csv: its folder does not exist; make it"),
        (("predict", "run", "photos", "-o", "p.xlsx"), "p.xlsx: got a name that ends in neither .csv nor .parquet"),
        (("evaluate", "run", "-o", "none/s.json"), "none/s.json: its folder does not exist"),
        (("export", "run", "-o", "none/w.pt"), "none/w.pt: its folder does not exist"),
        (("export", "photos", "-o", "w.pt"), "photos: not a run folder, it has no config.toml"),
        (("export", "run", "-o", "run.toml"), "run.toml: exists already; choose another name"),
    ],
)
def test_refusals(refused, moved, arguments, part):
    (moved / "photos" / "list.csv").write_text("file\na.png\n")
    refused(moved, arguments, part)


def test_a_run_of_tensors_predicts_no_images(refused, finished_once, home, animals):
    shutil.copytree(finished_once, home / "digits")
    refused(home, ("predict", "digits", "data", "-o", "p.csv"), "its data were no images in files")


def test_an_interruption_leaves_no_file(call, moved, monkeypatch):
    from fishr.inference import trained_model

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(trained_model.TrainedModel, "forward", interrupt)
    before = sorted(moved.rglob("*"))
    said = call("predict", "run", "photos", "-o", "p.csv")
    assert (said.code, said.err) == (1, "Error: p.csv: interrupted; nothing was written\n")
    assert sorted(moved.rglob("*")) == before


def test_export_writes_weights_and_a_card(call, moved):
    said = call("export", "run", "-o", "w.safetensors")
    assert said.code == 0, said
    assert said.out.splitlines() == [
        "model: w.safetensors",
        "card: w.md",
        "names: fishr's, since neither torchvision nor timm has a MNISTCNN",
    ]
    accuracy = json.loads((moved / "run" / "result.json").read_text())["scores"][0]["accuracy"]
    assert re.search(rf"\| env1_in \(photo\) +\| training +\| 2 +\| {accuracy:.1%} ", (moved / "w.md").read_text())
    said = call("export", "run", "-o", "w.pt2", "--as", "export")
    assert (said.code, (moved / "w.pt2").exists()) == (2, False)
    assert "w.md: exists already" in said.err
