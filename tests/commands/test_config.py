"""``config show`` and ``config validate``: what is shown is what would run."""

import json
import tomllib

import pytest

from fishr.configuration import structure
from fishr.protocols import recipes
from fishr.training import Experiment


@pytest.mark.parametrize("name", recipes())
def test_what_is_shown_is_the_recipe(call, name):
    said = call("config", "show", name)
    assert (said.code, said.err) == (0, "")
    assert structure(tomllib.loads(said.out), Experiment) == recipes()[name]()


def test_from_recipe_to_file_to_weights(call, home, short_fishr, weights, finished):
    """The long way round makes the same run, and its file is the run's."""
    shown = call("config", "show", *short_fishr, "--set", "seed=3")
    (home / "mine.toml").write_text(shown.out)
    valid = call("config", "validate", "mine.toml")
    assert (valid.code, valid.out) == (0, "mine.toml: valid, colored-digits, 7 steps\n")
    assert call("train", "mine.toml", "--out", "long").code == 0
    assert (home / "long" / "config.toml").read_text() == shown.out == (finished / "config.toml").read_text()
    assert weights(home / "long") == weights(finished)
    assert (home / "long" / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_a_file_and_overrides(call, home):
    (home / "mine.toml").write_text(call("config", "show").out)
    shown = call("config", "show", "mine.toml", "--set", "optimizer.lr=0.5", "--set", 'name="mine"')
    table = tomllib.loads(shown.out)
    assert (table["optimizer"]["lr"], table["name"]) == (0.5, "mine")
    assert (
        call("config", "validate", "mine.toml", "--set", "steps=9").out == "mine.toml: valid, colored-digits, 9 steps\n"
    )


def test_learning_rates_by_step_and_layer_are_shown_and_explained(call):
    rates = ("--set", "lr_schedule={kind='LinearSchedule', start=0, end=1, steps=4}")
    rates += ("--set", "lr_factors.'featurizer.1'=0.5", "--set", "optimizer.lr=0.01")
    table = tomllib.loads(call("config", "show", *rates).out)
    assert table["lr_schedule"] == {"kind": "LinearSchedule", "start": 0.0, "end": 1.0, "steps": 4}
    assert table["lr_factors"] == {"featurizer.1": 0.5}
    said = call("explain", "--step", "1", *rates)
    assert said.out.splitlines()[1] == "learning rate at step 1 = 0.0025 (model), 0.00125 (featurizer.1)"
    told = json.loads(call("explain", "--step", "4", "--format", "json", *rates).out)
    assert told["learning_rates"] == {"model": 0.01, "featurizer.1": 0.005}
    for command in ("explain", "train"):
        said = call(command, "--set", "lr_factors.featuriser=0.5")
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert "lr_factors: got 'featuriser', which no trained parameter has in its name" in said.err
        assert "'featurizer'" in said.err


def test_every_problem_is_listed_with_its_path(call, home):
    text = call("config", "show").out
    text = text.replace("steps = 240", 'stepz = 501\nsteps = "many"').replace('"Fishr"', '"Fisher"')
    (home / "bad.toml").write_text(text.replace("lr = ", "lr = -"))
    said = call("config", "validate", "bad.toml")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    for part in (
        "Error: bad.toml: ",
        'stepz: unknown key; did you mean "steps"?',
        'steps: got "many" (a string), expected a whole number',
        "objective.penalty.fishr.penalty.kind: got",
        'did you mean "Fishr"?',
        "optimizer.lr: got -0.00048",
    ):
        assert part in said.err


def test_a_run_folder_explains_itself(call, finished):
    """The config.toml of a run is a file as any other."""
    assert call("config", "validate", finished / "config.toml").code == 0
    assert call("config", "show", finished / "config.toml").out == (finished / "config.toml").read_text()
    assert json.loads((finished / "result.json").read_text())["steps"] == 7


@pytest.mark.parametrize(
    ("arguments", "title"), [((), "Experiment"), (("experiment",), "Experiment"), (("plan",), "Plan")]
)
def test_the_schema_is_json(call, arguments, title):
    said = call("config", "schema", *arguments)
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out)["$ref"] == f"#/$defs/{title}"
