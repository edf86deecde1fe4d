"""Files of predictions: their rows, and what an interruption leaves."""

import csv

import pytest
import torch

from fishr.errors import InputError
from fishr.inference import image_files, load_model, predict, write_predictions


@pytest.fixture(scope="module")
def model(photo_run):
    return load_model(photo_run)


@pytest.fixture(scope="module")
def expected(model, photos):
    (whole,) = predict(model, image_files([photos / "animals"]))
    return whole


def test_csv_has_a_row_an_image(model, photos, tmp_path, expected):
    seen = []
    written = write_predictions(model, [photos / "animals"], tmp_path / "p.csv", progress=seen.append)
    assert (written.images, written.unreadable, sum(seen)) == (24, 0, 24)
    with (tmp_path / "p.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["path", "class", "p_cat", "p_dog", "p_elk"]
    assert [row[0] for row in rows] == [str(path) for path in expected.paths]
    assert [row[1] for row in rows] == [model.label(index) for index in expected.classes.tolist()]
    found = torch.tensor([[float(value) for value in row[2:]] for row in rows])
    torch.testing.assert_close(found, expected.probabilities, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("rows", [5, 8192])
def test_parquet_has_the_same_rows(model, photos, tmp_path, expected, monkeypatch, rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("fishr.inference.prediction_files._ROWS", rows)
    write_predictions(model, [photos / "animals"], tmp_path / "p.parquet", "parquet")
    table = parquet.read_table(tmp_path / "p.parquet")
    assert table.column_names == ["path", "class", "p_cat", "p_dog", "p_elk"]
    assert table["path"].to_pylist() == [str(path) for path in expected.paths]
    assert table["class"].to_pylist() == [model.label(index) for index in expected.classes.tolist()]
    found = torch.tensor([table[f"p_{name}"].to_pylist() for name in model.class_names]).T
    assert torch.equal(found, expected.probabilities)


@pytest.mark.parametrize("style", ["csv", "parquet"])
def test_an_interruption_leaves_nothing(model, photos, tmp_path, style):
    if style == "parquet":
        pytest.importorskip("pyarrow")

    def interrupt(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(model, [photos / "animals"], tmp_path / "p", style, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_stays(model, photos, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"p\.csv: exists already; choose another name"):
        write_predictions(model, [photos / "animals"], path)
    path.unlink()
    with pytest.raises(InputError, match=r"p\.csv: exists already; choose another name"):
        write_predictions(model, [photos / "animals"], path, progress=lambda images: path.write_text("theirs"))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("p.csv", "theirs")]


def test_without_one_readable_image_there_is_no_file(model, tmp_path):
    (tmp_path / "a.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"got no image that can be read; the first: .*a\.png \(not an image\)"):
        write_predictions(model, [tmp_path / "a.png"], tmp_path / "p.csv")
    with pytest.raises(InputError, match=r"empty: got no image that can be read; give images"):
        write_predictions(model, [tmp_path / "empty"], tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_without_pyarrow_parquet_is_refused(model, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pyarrow is not installed; run pip install -e '\.\[parquet\]'"):
        write_predictions(model, [photos / "animals"], tmp_path / "p.parquet", "parquet")
    assert list(tmp_path.iterdir()) == []
