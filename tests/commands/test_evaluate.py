"""``evaluate`` against what the run itself recorded, and on files."""

import csv
import json
import re

import numpy as np
import pytest


@pytest.mark.slow
def test_json_agrees_with_the_result(call, finished, home, snapshot):
    before = snapshot(home)
    said = call("evaluate", finished, "--format", "json", "--device", "cpu")
    assert (said.code, said.err) == (0, "")
    told = json.loads(said.out)
    result = json.loads((finished / "result.json").read_text())
    assert (told["run"], told["step"], told["scores"]) == ("finished", 7, result["scores"])
    assert told["bootstrap"] == {"resamples": 1000, "seed": 0, "level": 0.95}
    for domain, score in zip(told["domains"], result["scores"], strict=True):
        assert (domain["name"], domain["loss"]) == (score["name"], score["loss"])
        metric = domain["accuracy"]
        assert metric["value"] == pytest.approx(score["accuracy"])
        assert metric["low"] <= metric["value"] <= metric["high"]
        assert np.sum(domain["confusion"]) == score["samples"] == sum(c["samples"] for c in domain["classes"])
    lowest = min(told["domains"], key=lambda domain: domain["accuracy"]["value"])
    assert told["worst"]["accuracy"] == {"domain": lowest["name"], **lowest["accuracy"]}
    assert said.out.count("\n") == 1
    assert snapshot(home) == before


def test_the_table_agrees_with_the_result(call, finished):
    said = call("evaluate", finished)
    scores = json.loads((finished / "result.json").read_text())["scores"]
    first, empty, header, _, *rows, last, blank, note = said.out.splitlines()
    assert (first, empty, blank) == ("finished after 7 steps", "", "")
    assert header.split()[:4] == ["domain", "split", "samples", "accuracy"]
    expected = [[s["name"], s["split"], str(s["samples"])] for s in scores]
    found = [re.split(r"\s{2,}", row) for row in rows]
    assert [row[:3] for row in found] == expected
    assert [(row[3].split()[0], row[-1]) for row in found] == [
        (f"{100 * s['accuracy']:.1f}", f"{s['loss']:.4f}") for s in scores
    ]
    assert re.fullmatch(r"\d+\.\d \[\d+\.\d, \d+\.\d\]", found[0][3])
    worst = min(s["accuracy"] for s in scores)
    assert last.split()[:3] == ["worst", str(sum(s["samples"] for s in scores)), f"{100 * worst:.1f}"]
    assert note.startswith("In percent; in brackets 95 % intervals over 1000 resamples")


def test_an_interrupted_run_is_scored_where_it_stopped(call, interrupted):
    """The scores are those that training itself saw with these weights."""
    told = json.loads(call("evaluate", interrupted, "--format", "json").out)
    assert told["step"] == 4
    assert call("train", "--resume", interrupted).code == 0
    lines = [json.loads(line) for line in (interrupted / "metrics.jsonl").read_text().splitlines()]
    risk = next(line["domain_losses"] for line in lines if line.get("step") == 4 and "loss" in line)
    for score in told["scores"][:2]:
        assert abs(score["loss"] - risk[score["name"]]) < 1e-6


def test_a_checkpoint_of_another_seed_is_refused(call, finished, home, short_fishr, snapshot):
    """Its weights would fit, so that only what it says of itself tells."""
    assert call("train", *short_fishr, "--seed", 4, "--out", "other").code == 0
    (home / "other" / "checkpoint.pt").replace(finished / "checkpoint.pt")
    before = snapshot(home)
    for arguments in (("evaluate",), ("train", "--resume")):
        said = call(*arguments, finished)
        assert said.code == 2
        assert said.err.startswith("Error: finished/checkpoint.pt: was made with another configuration")
    assert snapshot(home) == before


@pytest.fixture
def world(home, moved):
    """A run on images whose data folder is gone, the images elsewhere, and a list of them."""
    with (home / "list.csv").open("w", newline="") as file:
        rows = [(path, path.parts[-2], path.parts[-3]) for path in sorted((home / "photos").glob("*/*/*.png"))]
        csv.writer(file).writerows([("file", "species", "site"), *rows])
    return home


def test_files_need_none_of_the_data(call, world):
    said = call("evaluate", "run", "--on", "photos", "-o", "a.json", "--resamples", "20", "--device", "cpu")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("over 20 resamples of each domain's samples.\n\nresult: a.json\n")
    found = json.loads((world / "a.json").read_text())
    assert [(one["title"], one["samples"], one["source"]) for one in found["domains"]] == [
        ("art", 4, "photos"),
        ("photo", 4, "photos"),
    ]
    columns = ("--columns", "file,species,site", "--resamples", "20")
    listed = json.loads(call("evaluate", "run", "--on", "list.csv", *columns, "--format", "json").out)
    for one, other in zip(found["domains"], listed["domains"], strict=True):
        assert one | {"source": "list.csv"} == other


def test_data_of_an_experiment_are_whole_environments_as_the_run_sees_images(call, world):
    """Its own size, augmentation and numbers of classes do not count."""
    (world / "photos" / "art" / "ant").mkdir()
    other = (
        (world / "run.toml")
        .read_text()
        .replace("animals", "photos")
        .replace("32, augment = false", "16, augment_evaluation = true")
    )
    (world / "other.toml").write_text(other)
    arguments = ("--resamples", "20", "--format", "json")
    folder = json.loads(call("evaluate", "run", "--on", "photos", *arguments).out)["domains"]
    found = json.loads(call("evaluate", "run", "--on", "other.toml", "--data-dir", ".", *arguments).out)["domains"]
    assert found == [one | {"source": "other.toml"} for one in folder]
    for name in ("art", "photo"):
        (world / "photos" / name / "dog").rename(world / "photos" / name / "bee")
    said = call("evaluate", "run", "--on", "other.toml", "--data-dir", ".")
    assert said.code == 2
    assert said.err.startswith("Error: other.toml: got the class 'bee', which the run does not know, expected some of")


def test_classes_are_shown_on_demand(call, world):
    said = call("evaluate", "run", "--on", "photos/art", "--resamples", "0", "--per-class", "--device", "cpu")
    assert (said.code, said.err) == (0, "")
    *_, title, header, _, cat, dog, blank, note = said.out.splitlines()
    assert (title, blank) == ("art", "")
    assert re.split(r"\s{2,}", header) == ["class", "samples", "precision", "recall", "F1", "AUROC", "→ cat", "→ dog"]
    assert [row.split()[:2] for row in (cat, dog)] == [["cat", "2"], ["dog", "2"]]
    assert sum(int(cell) for row in (cat, dog) for cell in row.split()[-2:]) == 4
    assert "[" not in said.out
    assert note.startswith("A column → NAME")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--on", "photos", "-o", "run/result.json"), "run/result.json: exists already; choose another name"),
        (("--on", "photo/s"), "photo/s: no such file or folder; give a folder of images, a list, a cache or an .npz"),
        (("--on", "list.csv"), "list.csv: line 1: got the header file,species,site, expected class,path; it lacks"),
        (("--on", "list.csv", "--columns", "file"), "--columns: got 'file', expected PATH,LABEL or PATH,LABEL,DOMAIN"),
        (("--on", "photos", "--columns", "a,b"), "--columns: got it without a list of images"),
        (("--on", "photos", "--on", "bad.csv"), "bad.csv: got the class 'owl', which the run does not know"),
        (("--on", "guesses.csv"), "guesses.csv: got a file of predictions, whose class is no label; give a list with"),
        (("--on", "run.toml"), "data/animals: no such folder; run `fishr data download NAME`"),
        (("--on", "notes.txt"), "notes.txt: got a list called 'notes.txt'"),
        (("--resamples", "-1"), "Invalid value for '--resamples'"),
    ],
)
def test_refusals(refused, world, arguments, part):
    (world / "bad.csv").write_text("path,label\nphotos/art/cat/0.png,owl\n")
    (world / "guesses.csv").write_text("path,class,p_cat,p_dog\nphotos/art/cat/0.png,dog,0.1,0.9\n")
    (world / "notes.txt").write_text("")
    refused(world, ("evaluate", "run", *arguments, "--device", "cpu"), part)


def test_domains_of_the_own_data_by_name(call, finished):
    found = json.loads(call("evaluate", "finished", "--on", "gray", "--resamples", "0", "--format", "json").out)
    assert [one["title"] for one in found["domains"]] == ["gray"]
    assert found["domains"][0]["auroc"]["low"] is None
    said = call("evaluate", "finished", "--on", "grey")
    assert said.code == 2
    assert said.err == (
        "Error: grey: neither a file or folder, nor a domain of finished; give a path, or one of flip 0.2, flip 0.1, "
        "reversed, gray\n"
    )


@pytest.mark.slow
def test_a_run_on_features_is_scored_on_a_cache(call, finished, short_fishr):
    assert call("cache", "features", "finished", "-o", "f.h5").code == 0
    assert call("train", *short_fishr, "--seed", 3, "--on-features", "f.h5", "--out", "head").code == 0
    own, file = (
        json.loads(call("evaluate", "head", *on, "--resamples", "0", "--format", "json").out)["domains"]
        for on in ((), ("--on", "f.h5"))
    )
    assert [one | {"source": "f.h5", "split": "evaluation"} for one in own] == file
