"""Tables run again: which runs, their means, their resuming."""

import json
from pathlib import Path

import attrs
import pytest

from fishr.configuration import dumps
from fishr.errors import InputError
from fishr.models.featurizers import MLP
from fishr.protocols import colored_digits, colored_mnist
from fishr.protocols.invariance import METHODS
from fishr.reproductions import (
    COLUMNS,
    REPRODUCTIONS,
    Restart,
    find_reproduction,
    restarts_of,
    table,
)
from fishr.training import Finished, run

# Ramé et al. 2022, arXiv 2109.02934, Table 2: train, reversed, gray.
TABLE_2 = {
    "erm": ((86.4, 0.2), (14.0, 0.7), (71.0, 0.7)),
    "irm": ((71.0, 0.5), (65.6, 1.8), (66.1, 0.2)),
    "vrex": ((71.7, 1.5), (67.2, 1.5), (68.6, 2.2)),
    "fishr": ((71.0, 0.9), (69.5, 1.0), (70.2, 1.1)),
}


def test_the_published_numbers():
    published = REPRODUCTIONS["colored-mnist"].published
    assert {
        method: tuple((row[column].mean, row[column].deviation) for column in COLUMNS)
        for method, row in published.items()
    } == TABLE_2
    assert not REPRODUCTIONS["colored-digits"].published


@pytest.mark.parametrize(
    ("name", "recipe", "count"), [("colored-digits", colored_digits, 5), ("colored-mnist", colored_mnist, 1)]
)
def test_every_run_of_a_table(name, recipe, count):
    restarts = list(restarts_of(name, Path("out")))
    assert [(restart.method, restart.seed) for restart in restarts] == [(m, s) for m in METHODS for s in range(count)]
    for restart in restarts:
        assert restart.experiment == attrs.evolve(recipe(restart.method), seed=restart.seed)
        assert restart.folder == Path("out") / f"{restart.method}-{restart.seed}"
    assert len(list(restarts_of(name, Path("out"), ("vrex",), restarts=7))) == 7


def test_unknown_names():
    with pytest.raises(InputError, match="office: got no such table, expected one of colored-digits, colored-mnist"):
        find_reproduction("office")
    with pytest.raises(InputError, match="method: got 'dann', expected some of erm, irm, vrex, fishr"):
        table("colored-digits", Path("out"), ("erm", "dann"))
    with pytest.raises(InputError, match="dann"):
        next(restarts_of("colored-digits", Path("out"), ("dann",)))


def _result(folder, accuracies, status="finished"):
    first, second, reversed_, gray = accuracies
    named = (("a", first, "training"), ("b", second, "training"), ("reversed", reversed_, "evaluation"))
    scores = [{"name": name, "accuracy": accuracy, "split": split} for name, accuracy, split in named]
    scores.append({"name": "gray", "accuracy": gray, "split": "evaluation"})
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({"status": status, "scores": scores}))


def test_means_and_deviations_over_finished_runs(tmp_path):
    _result(tmp_path / "erm-0", (0.8, 0.9, 0.1, 0.5))
    _result(tmp_path / "erm-1", (0.6, 0.7, 0.3, 0.5))
    (tmp_path / "erm-2").mkdir()
    (tmp_path / "erm-3").mkdir()
    (tmp_path / "erm-3" / "result.json").write_text('{"status": "failed", "step": 3}')
    _result(tmp_path / "fishr-0", (0.7, 0.7, 0.6, 0.65))
    erm, fishr = table("colored-mnist", tmp_path)
    assert (erm.method, erm.restarts, fishr.method, fishr.restarts) == ("erm", 2, "fishr", 1)
    # The population's deviation: of 85 and 65 it is 10.
    assert [str(erm.measured[column]) for column in COLUMNS] == ["75.0 ± 10.0", "20.0 ± 10.0", "50.0 ± 0.0"]
    assert [str(fishr.measured[column]) for column in COLUMNS] == ["70.0 ± 0.0", "60.0 ± 0.0", "65.0 ± 0.0"]
    assert fishr.published == REPRODUCTIONS["colored-mnist"].published["fishr"]
    (only,) = table("colored-digits", tmp_path, ("fishr",))
    assert only.published is None
    assert table("colored-digits", tmp_path / "none") == ()


@pytest.fixture
def restart(tmp_path):
    quick = attrs.evolve(colored_digits("erm"), steps=4, checkpoint_every=2, featurizer=MLP(widths=(8,)), seed=2)
    return Restart("erm", 2, quick, tmp_path / "erm-2")


def test_a_restart_begins_goes_on_and_ends(restart):
    whole = attrs.evolve(restart, folder=restart.folder.with_name("whole"))
    *_, expected = whole.run()
    going = restart.run()
    for _ in range(4):  # started, three steps
        next(going)
    going.close()
    assert not (restart.folder / "result.json").exists()
    first, *rest, last = restart.run()
    assert first.state.step == 2
    assert len(rest) == 3  # two steps and an evaluation
    assert last.scores == expected.scores
    (again,) = restart.run()
    assert isinstance(again, Finished)
    assert again.scores == expected.scores


def test_another_experiment_in_its_folder_is_refused(restart):
    other = attrs.evolve(restart.experiment, seed=3)
    list(run(other, restart.folder, experiment_text=dumps(other)))
    with pytest.raises(
        InputError, match="erm-2: holds another experiment than colored-digits-erm; choose another --out"
    ):
        restart.run()


def test_a_folder_that_is_no_run(restart):
    restart.folder.mkdir()
    with pytest.raises(InputError, match="holds another experiment"):
        restart.run()
    assert list(restart.folder.iterdir()) == []
