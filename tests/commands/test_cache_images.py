import json
import warnings

import pytest


def test_a_cache_is_made_once(call, animals, home):
    said = call("cache", "images", "data/animals", "-o", "images.h5", "--size", 16, "--workers", 1)
    assert (said.code, said.err) == (0, "")
    expected = r"images.h5: 2 environments, 2 classes, 8 images of 16 × 16 pixels, "
    assert said.out.startswith(expected)
    again = call("cache", "images", "data/animals", "-o", "images.h5", "--size", 16)
    assert again.code == 0
    assert again.out.startswith("images.h5: is there already, made of the same; 2 environments")
    assert call("cache", "verify", "images.h5").code == 0
    assert sorted(path.name for path in home.iterdir()) == ["data", "images.h5"]


def test_json_has_what_a_program_wants(call, animals, home):
    told = [
        json.loads(call("cache", "images", animals, "-o", home / "a.h5", "--size", 8, "--format", "json").out)
        for _ in range(2)
    ]
    assert [each["written"] for each in told] == [True, False]
    assert told[0] | {"written": False} == told[1]
    assert told[0]["provenance"]["classes"] == ["cat", "dog"]
    common = {"split": "training", "rows": 4, "environment": None}
    assert told[0]["domains"] == [{"name": name, **common} for name in ("art", "photo")]
    assert len(told[0]["key"]) == 64
    assert told[0]["bytes"] == (home / "a.h5").stat().st_size


def test_a_list_below_another_data_folder(call, animals, home):
    lines = [f"{path.parts[-3]},{path.parts[-2]},{path}" for path in sorted(animals.rglob("*.png"))]
    (home / "lists").mkdir()
    (home / "lists" / "some.csv").write_text("\n".join(["environment,class,path", *lines]))
    said = call("cache", "images", "lists/some.csv", "-o", "images.h5", "--size", 4)
    assert said.code == 0, said
    assert "8 images of 4 × 4 pixels" in said.out


def test_what_may_not_be_meant_is_one_line(call, animals):
    (animals / "art" / "cat" / "extra.gif").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        said = call("cache", "images", "data/animals", "-o", "images.h5", "--size", 4)
    assert said.code == 0
    doubt = "images are skipped, of other formats or outside the class folders: 1 .gif"
    assert said.err == f"Warning: data/animals: {doubt}; see `fishr data verify data/animals`\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["plants", "-o", "new.h5"], "plants: no such folder; run `fishr data download NAME`"),
        (["animals", "-o", "new.h5"], "animals: nothing is there, but data/animals is"),
        (["plants.csv", "-o", "new.h5"], "plants.csv: no such file"),
        (["data/animals", "-o", "new.h5", "--size", "0"], "0 is not in the range x>=1"),
        (["data/animals", "-o", "new.h5", "--workers", "0"], "0 is not in the range x>=1"),
        (["data/animals/art", "-o", "new.h5"], "its images are directly in it, expected folders of classes"),
        (
            ["data/animals", "-o", "made.h5", "--size", "9"],
            "made.h5: made with size = 8, expected 9; choose another name",
        ),
        (["data/animals", "-o", "nowhere/new.h5"], "nowhere/new.h5: cannot be written there"),
        (["data/animals", "-o", "data/animals/art/cat/0.png"], "0.png: "),
    ],
)
def test_refusals(call, refused, animals, home, arguments, part):
    call("cache", "images", "data/animals", "-o", "made.h5", "--size", "8")
    refused(home, ["cache", "images", *arguments], part)


def test_an_interruption_says_how_to_go_on(call, animals, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fishr.data.images.preprocessing.resize", interrupt)
    said = call("cache", "images", "data/animals", "-o", "a.h5", "--size", 8, "--workers", 1)
    assert (said.code, said.err) == (1, "Error: a.h5: interrupted; the same command resumes it\n")
    monkeypatch.undo()
