"""``train --resume``: finished, interrupted, changed, foreign."""

import json
import shutil

import pytest


def test_an_interrupted_run_ends_as_an_untouched_one(call, interrupted, finished_once, weights):
    said = call("train", "--resume", interrupted)
    assert said.code == 0
    assert said.err.splitlines()[0].startswith("step 6/7")
    assert weights(interrupted) == weights(finished_once)
    for name in ("metrics.jsonl", "config.toml", "figure.png"):
        assert (interrupted / name).read_bytes() == (finished_once / name).read_bytes(), name
    scores = [json.loads((folder / "result.json").read_text())["scores"] for folder in (interrupted, finished_once)]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_a_finished_run_shows_its_result_again(call, finished, snapshot):
    before = snapshot(finished)
    said = call("train", "--resume", finished)
    assert (said.code, said.err) == (0, "")
    assert "reversed  evaluation  497" in said.out
    assert said.out.endswith("run: finished\nfigure: finished/figure.png\n")
    after = snapshot(finished)
    assert {name: after[name] for name in before if name != "figure.png"} == {
        name: before[name] for name in before if name != "figure.png"
    }
    assert after["figure.png"][0] == before["figure.png"][0]
    told = call("train", "--resume", finished, "--format", "json")
    assert told.out == (finished / "result.json").read_text()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("--set", ["--set", "steps=9"]),
        ("--seed", ["--seed", "3"]),
        ("--out", ["--out", "elsewhere"]),
        ("RECIPE or FILE", ["colored-digits"]),
    ],
)
def test_a_resumed_run_changes_nothing(call, home, interrupted, snapshot, name, given):
    before = snapshot(home)
    said = call("train", *given, "--resume", interrupted)
    assert said.code == 2
    assert said.err.startswith(f"Error: {name}: got it together with --resume")
    assert snapshot(home) == before


def test_a_configuration_changed_by_hand_is_refused(call, home, interrupted, snapshot):
    """The weights would fit: only the text in the checkpoint tells."""
    config = interrupted / "config.toml"
    config.write_text(config.read_text().replace("seed = 3", "seed = 4"))
    before = snapshot(home)
    for arguments in (("train", "--resume"), ("evaluate",)):
        said = call(*arguments, interrupted)
        assert said.code == 2
        assert "was made with another configuration than the config.toml beside it" in said.err
    assert snapshot(home) == before


def test_a_comment_before_the_first_checkpoint_does_no_harm(call, interrupted, finished_once, weights):
    (interrupted / "checkpoint.pt").unlink()
    with (interrupted / "config.toml").open("a") as file:
        file.write("# mine\n")
    assert call("train", "--resume", interrupted).code == 0
    assert weights(interrupted) == weights(finished_once)


def test_a_failed_run_says_the_same_again(call, home, short):
    """Its result says failed until it ends otherwise."""
    options = ("colored-digits-erm", *short, "--set", "optimizer.lr=1e30", "--out", "diverged")
    first, again = call("train", *options), call("train", "--resume", "diverged")
    assert (first.code, again.code) == (1, 1)
    assert first.err.splitlines()[-1] == again.err.splitlines()[-1]
    assert json.loads((home / "diverged" / "result.json").read_text())["status"] == "failed"


def test_a_killed_figure_is_drawn_again(call, finished, finished_once):
    (finished / "figure.png").unlink()
    (finished / ".figure.png.0123456789abcdef.fishr-partial").write_bytes(b"half")
    assert call("train", "--resume", finished).code == 0
    assert sorted(path.name for path in finished.iterdir()) == sorted(path.name for path in finished_once.iterdir())
    assert (finished / "figure.png").read_bytes() == (finished_once / "figure.png").read_bytes()


def test_a_run_may_be_moved(call, home, interrupted, finished_once, weights):
    shutil.move(interrupted, home / "moved here")
    assert call("train", "--resume", "moved here").code == 0
    assert weights(home / "moved here") == weights(finished_once)
