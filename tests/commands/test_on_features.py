"""``train --on-features``: the same bits as through the frozen featurizer, and refusals that name what differs."""

import json
import shutil
import tomllib
from functools import cache

import numpy as np
import pytest
import torch
from ranks import on_ranks
from torch.testing import assert_close

import fishr
from fishr.configuration import load
from fishr.data.caches import Section
from fishr.data.caches.feature_cache import write_features
from fishr.ranks import ALONE
from fishr.training import Experiment, train

pytestmark = pytest.mark.slow

# A row's bits would depend on its batch: on its size in one of these, on the row's place in the other.
WIDE, NARROW = "[40, 24]", "[7, 5]"
TINY = (
    "--set",
    "steps=6",
    "--set",
    "evaluate_every=6",
    "--set",
    "checkpoint_every=4",
    "--set",
    "data.training_images=300",
    "--set",
    "data.copies=1",
)
WARM_UP = ("--set", "objective.penalty.fishr.schedule.at=4")
PLAIN = (*TINY, *WARM_UP)
MINIBATCHES = ("--set", "batches.kind=Minibatch", "--set", "batches.size=2")
HALF = ("--set", "compute.precision=bf16")
CASES = {
    "linear head, full batch": (NARROW, PLAIN),
    "linear head, minibatches and moving average": (
        WIDE,
        (*PLAIN, *MINIBATCHES, "--set", "objective.penalty.fishr.penalty.ema=0.9"),
    ),
    "MLP head, minibatches": (NARROW, (*PLAIN, *MINIBATCHES, "--set", "head.kind=MLPHead", "--set", "head.widths=[5]")),
    "MLP head, full batch": (WIDE, (*PLAIN, "--set", "head.kind=MLPHead", "--set", "head.widths=[5]")),
    "half precision": (WIDE, (*PLAIN, *HALF)),
}


@pytest.fixture(scope="module")
def make_base(call_anywhere, tmp_path_factory):
    """Train a run, called "base", and cache its features; once for the same widths and options."""

    @cache
    def make(widths, *options):
        parent = tmp_path_factory.mktemp("base")
        made = (
            "train",
            *PLAIN,
            *options,
            "--set",
            f"featurizer.widths={widths}",
            "--seed",
            3,
            "--out",
            parent / "base",
        )
        for arguments in (made, ("cache", "features", parent / "base", "-o", parent / "features.h5")):
            said = call_anywhere(*arguments)
            assert said.code == 0, said
        return parent

    return make


@pytest.fixture
def base(make_base, home):
    shutil.copytree(make_base(WIDE), home, dirs_exist_ok=True)


@pytest.mark.parametrize(("widths", "options"), CASES.values(), ids=CASES)
def test_the_same_bits_as_through_the_frozen_featurizer(call, home, make_base, widths, options, weights):
    shutil.copytree(make_base(widths, *(HALF if HALF[1] in options else ())), home, dirs_exist_ok=True)
    frozen = f"featurizer={{kind='Frozen', inner={{widths={widths}}}, weights='base'}}"
    assert call("train", *options, "--set", frozen, "--seed", 3, "--out", "frozen").code == 0
    said = call("train", *options, "--seed", 3, "--on-features", "features.h5", "--out", "cached")
    assert said.code == 0, said
    frozen, cached, trained = (weights(home / name) for name in ("frozen", "cached", "base"))
    assert cached == {name: value for name, value in frozen.items() if name.startswith("head.")}
    unchanged = {n.replace(".inner", ""): value for n, value in frozen.items() if n.startswith("featurizer.")}
    assert unchanged == {name: value for name, value in trained.items() if name.startswith("featurizer.")}
    # Losses, penalties and the scores of every domain too.
    assert (home / "frozen" / "metrics.jsonl").read_bytes() == (home / "cached" / "metrics.jsonl").read_bytes()


def test_the_layers_above_train_to_the_same_bits_and_resume(call, home, base, cut, weights):
    options = (*PLAIN, *MINIBATCHES, "--seed", 3)
    said = call("cache", "features", "base", "--at", "featurizer.2", "-o", "layer.h5")
    assert (said.code, said.out) == (0, "layer.h5: 4 domains, 3294 rows, 0.6 MiB\n")
    frozen = f"featurizer={{kind='Frozen', inner={{widths={WIDE}}}, weights='base', at='2'}}"
    assert call("train", *options, "--set", frozen, "--out", "frozen").code == 0
    said = call("train", *options, "--on-features", "layer.h5", "--out", "cached")
    assert said.code == 0, said
    frozen, cached = (weights(home / name) for name in ("frozen", "cached"))
    assert cached == {name: value for name, value in frozen.items() if ".below." not in name}
    assert any(name.startswith("featurizer.above.") for name in cached)
    assert (home / "frozen" / "metrics.jsonl").read_bytes() == (home / "cached" / "metrics.jsonl").read_bytes()
    # The run is evaluated, and read without the file where the data are not needed.
    assert call("evaluate", "cached").code == 0
    cut(shutil.copytree(home / "cached", home / "cut"))
    assert call("train", "--resume", "cut").code == 0
    assert weights(home / "cut") == cached
    assert fishr.load_model(home / "cut").featurizer(torch.zeros(1, 40)).shape == (1, 24)
    alone, *on_two = last_weights(ALONE, home / "cached"), *on_ranks(2, last_weights, home / "cached")
    for found in on_two:
        for name, value in alone.items():
            assert_close(found[name], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("at", [None, "2"])
def test_joined_with_the_layers_below_to_the_same_bits(call, home, base, refused, weights, at):
    options = (*PLAIN, *MINIBATCHES, "--seed", 3)
    layer, frozen = (("--at", at), f", at='{at}'") if at else ((), "")
    assert call("cache", "features", "base", *layer, "-o", "outputs.h5").code == 0
    assert call("train", *options, "--on-features", "outputs.h5", "--out", "cached").code == 0
    through = f"featurizer={{kind='Frozen', inner={{widths={WIDE}}}, weights='base'{frozen}}}"
    assert call("train", *options, "--set", through, "--out", "frozen").code == 0
    refused(
        home,
        ["join", "cached", "--out", "whole"],
        "was computed with other weights than the first weights of its network",
    )
    refused(home, ["join", "cached", "--below", "frozen", "--out", "whole"], "frozen has shape")
    refused(
        home, ["join", "base", "--out", "whole"], "base: got a run on ColoredDigits, expected one on cached features"
    )
    refused(home, ["join", "cached", "--below", "base", "--out", "base"], "base: exists already")
    said = call("join", "cached", "--below", "base", "--out", "whole")
    assert (said.code, said.err) == (0, "")
    assert said.out == "whole network: whole (inputs 2 × 8 × 8, 2 classes)\n"
    assert weights(home / "whole") == weights(home / "frozen")
    scores = [call("evaluate", name, "--resamples", "0", "--format", "json").out for name in ("whole", "frozen")]
    assert json.loads(scores[0])["scores"] == json.loads(scores[1])["scores"]
    inputs = torch.randn(70, 2, 8, 8)
    whole, expected = (fishr.load_model(home / name) for name in ("whole", "frozen"))
    assert torch.equal(whole(inputs), expected(inputs))
    # As programs for other libraries, in one pass and not by blocks.
    assert call("export", "whole", "--as", "torchscript", "-o", "whole.pt").code == 0
    with pytest.warns(FutureWarning, match="torch.jit.load"):
        program = torch.jit.load(home / "whole.pt")
    assert_close(program(inputs), whole(inputs), atol=1e-5, rtol=1e-5)
    refused(home, ["train", "--resume", "whole"], "whole: has joined weights, which cannot train on")
    (home / "outputs.h5").unlink()
    refused(home, ["join", "cached", "--below", "base", "--out", "again"], "outputs.h5: no such")


def test_a_network_on_features_is_not_joined(call, home, base, refused):
    """Its own layers would be lost."""
    data = "data={kind='CachedFeatures', path='features.h5'}"
    options = (*PLAIN[-2:], "--set", data, "--set", "featurizer.widths=[3]", "--set", "steps=2", "--data-dir", ".")
    assert call("train", *options, "--out", "own").code == 0
    refused(
        home, ["join", "own", "--below", "base", "--out", "whole", "--data-dir", "."], "own: has weights of featurizer"
    )


def last_weights(ranks, folder):
    *_, finished = train(load(folder / "config.toml", Experiment), ranks=ranks)
    return finished.state.parameters


def test_a_layer_is_named_or_refused(home, base, refused):
    arguments = ["cache", "features", "base", "--at", "blocks.4", "-o", "layer.h5"]
    refused(home, arguments, "at: got 'blocks.4', which is no layer of the network; expected a name such as")


def test_the_configuration_says_which_features(call, home, base, weights):
    options = (*CASES["linear head, minibatches and moving average"][1], "--seed", 3, "--on-features", "features.h5")
    assert call("train", *options, "--out", "cached").code == 0
    data = tomllib.loads((home / "cached" / "config.toml").read_text())["data"]
    assert data["kind"] == "CachedFeatures"
    assert data["path"] == str(home / "features.h5")
    assert len(data["key"]) == 64
    # From its own configuration, by another name.
    assert call("train", home / "cached" / "config.toml", "--out", "again").code == 0
    assert weights(home / "again") == weights(home / "cached")
    said = call("evaluate", "cached", "--format", "json")
    assert [score["name"] for score in json.loads(said.out)["scores"]] == ["flip 0.2", "flip 0.1", "reversed", "gray"]


def test_a_resumed_run_refuses_other_features(call, home, base, cut, weights):
    """Other weights at the same place: the shapes fit, and only the key tells."""
    options = (*CASES["linear head, full batch"][1], "--seed", 3, "--on-features", "features.h5")
    assert call("train", *options, "--out", "untouched").code == 0
    cut(shutil.copytree(home / "untouched", home / "cut"))
    (home / "features.h5").rename(home / "right.h5")
    other = ("--set", f"featurizer.widths={WIDE}", "--set", "optimizer.lr=0.002", "--seed", 3, "--out", "other")
    assert call("train", *PLAIN, *other).code == 0
    assert call("cache", "features", "other", "-o", "features.h5").code == 0
    said = call("train", "--resume", "cut")
    assert said.code == 2
    assert "features.h5: made with weights_sha256 = " in said.err
    (home / "right.h5").replace(home / "features.h5")
    assert call("train", "--resume", "cut").code == 0
    assert weights(home / "cut") == weights(home / "untouched")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("--seed", 4), "its features are of seed = 3, the experiment has 4"),
        (("--seed", 3, "--set", "data.training_images=200"), "of data.training_images = 300, the experiment has 200"),
        (("--seed", 3, "--set", "data.flips=[0.3, 0.1]"), "of data.flips = (0.2, 0.1), the experiment has (0.3, 0.1)"),
    ],
)
def test_features_of_other_data_are_refused(call, home, base, refused, change, told):
    refused(home, ["train", *TINY, *change, "--on-features", "features.h5", "--out", "cached"], told)


def test_features_of_another_data_set_are_refused(call, home, base, refused):
    arguments = ["train", "colored-mnist", "--seed", "3", "--on-features", "features.h5", "--out", "cached"]
    refused(home, arguments, "of data.kind = 'ColoredDigits', the experiment has 'ColoredMNIST'")


def test_no_file_and_another_file_are_refused(home, refused):
    (home / "text.h5").write_text("features")
    for name, told in (("none.h5", "none.h5: no such file"), ("text.h5", "text.h5: not an HDF5 file")):
        refused(home, ["train", "--on-features", name, "--out", "cached"], told)


def test_features_of_nobody_knows_what_are_refused(home, refused):
    rows = {"features": np.ones((4, 3)), "labels": np.arange(4) % 2, "logits": np.zeros((4, 2)), "ids": np.arange(4)}
    sections = [Section("photo", "training", 4)]
    write_features(home / "mine.h5", {"dtype": "float32"}, {"outputs": 2}, sections, lambda *_: rows, part_rows=4)
    told = "mine.h5: does not name the experiment of its features; make it with `fishr cache features`"
    refused(home, ["train", "--on-features", "mine.h5", "--out", "cached"], told)
