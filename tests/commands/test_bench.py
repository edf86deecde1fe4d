import json
import tomllib

import pytest
import tomli_w
import torch

PLUGIN = """
from attrs import frozen
from fishr.data import HeldOut
from fishr.data.images import ImageFolders


@frozen
class Ours:
    source: ImageFolders = ImageFolders("animals", size=8)

    def __call__(self, seed, data_dir):
        return HeldOut(self.source, (0,))(seed, data_dir)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("fishr.data.images.throughput._TURN_SECONDS", 0)


SMALL = ("--size", 8, "--batch", 2, "--rounds", 2, "--device", "cpu")


@pytest.mark.slow
def test_a_table_of_all_ways(call, animals):
    assert call("cache", "images", "data/animals", "-o", "data/images.h5", "--size", 8, "--workers", 1).code == 0
    said = call("bench", "data", "data/animals", "--cache", "data/images.h5", *SMALL)
    assert (said.code, said.err) == (0, "")
    title, header, _, *rows = said.out.splitlines()
    assert title == "data/animals: batches of 2 images of 8² of each environment, cpu, 1 threads"
    assert header.split() == ["images", "prepare", "inputs", "images/s", "times", "faster"]
    pairs = [
        ("files", "reader"),
        ("files", "device"),
        ("cache", "reader"),
        ("cache", "device"),
        ("device_cache", "device_cache"),
    ]
    expected = [[*pair, inputs] for inputs in ("augmented", "plain") for pair in pairs]
    assert [row.split()[:3] for row in rows] == expected
    assert rows[0].endswith("1.00 (1.00 to 1.00)")


@pytest.mark.slow
def test_json_through_cli(forked, cli, animals):
    """As a process of its own, which is told how many threads to take."""
    said = cli("bench", "data", "data/animals", *SMALL, "--workers", 2, "--rows", 3, "--format", "json")
    # On a machine with other work, stderr has the progress.
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert {name: told[name] for name in ("source", "size", "batch", "threads", "device")} == {
        "source": "data/animals",
        "size": 8,
        "batch": 2,
        "threads": 2,
        "device": "cpu",
    }
    assert len(told["ways"]) == 6
    for way in told["ways"]:
        assert 0 < way["images_per_second"]["low"] <= way["images_per_second"]["median"]
        if (way["images"], way["prepare"]) == ("files", "reader"):
            assert way["times_faster"] == {"low": 1.0, "median": 1.0, "high": 1.0}


def test_threads_are_left_as_they_are(call, animals):
    assert call("bench", "data", "data/animals", *SMALL).code == 0
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["plants"], "plants: no such folder; run `fishr data download NAME`"),
        (["plants.csv"], "plants.csv: no such file"),
        (["data/animals", "--cache", "nowhere.h5"], "nowhere.h5: no such file"),
        (["animals"], "animals: nothing is there, but data/animals is; a path on the command line starts at the"),
        (["data/animals", "--rounds", "1"], "1 is not in the range 2<=x<=1000"),
        (["data/animals", "--rounds", "1001"], "1001 is not in the range 2<=x<=1000"),
        (["data/animals", "--batch", "0"], "0 is not in the range x>=1"),
        (["data/animals", "--device", "cuda:9"], "device: got 'cuda:9'"),
    ],
)
def test_refusals(refused, animals, home, arguments, part):
    refused(home, ["bench", "data", *arguments], part)


def test_an_experiment_with_a_plugin_is_measured_at_its_own_size(call, refused, home, animals):
    (home / "bench_data.py").write_text(PLUGIN)
    settings = tomllib.loads(call("config", "show", "colored-digits-erm").out) | {"data": {"kind": "bench_data:Ours"}}
    (home / "run.toml").write_text(tomli_w.dumps(settings))
    options = ("bench", "data", "run.toml", "--batch", 2, "--rounds", 2, "--device", "cpu")
    said = call(*options, "--plugin", "bench_data")
    assert said.out.splitlines()[0] == "run.toml: batches of 2 images of 8² of each environment, cpu, 1 threads", said
    refused(home, options, "if you trust it, pass --plugin bench_data")
    refused(home, [*options, "--plugin", "bench_data", "--size", 16], "run.toml, which has its own size; drop one")
