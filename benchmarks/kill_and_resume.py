"""``python -m benchmarks.kill_and_resume [--kills 20] [--seed 0]``: does a run survive kill -9 to the same bits?

Each run is started by ``cli.py train``, killed at random moments, resumed and killed again, and at last let
through; its files are then compared with those of a run that nobody touched.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.killing import Mismatch, ended, kill_after, report, start_python, wait
from fishr.files import whole_name

FILES = ["checkpoint.pt", "config.toml", "figure.png", "metrics.jsonl", "result.json"]
KILLS_A_RUN = 3
_COMMON = ("--set", "steps=60", "--set", "checkpoint_every=7", "--set", "evaluate_every=10")
_WARM_UP = ("--set", "objective.penalty.fishr.schedule.at=30")
VARIANTS: dict[str, tuple[str, ...]] = {
    "full batch": (*_COMMON, *_WARM_UP, "--set", "objective.fresh_optimizer_at=30"),
    "minibatches and moving average": (
        *(*_COMMON, *_WARM_UP, "--set", "objective.penalty.fishr.penalty.ema=0.9"),
        *("--set", "batches.kind=Minibatch", "--set", "batches.size=64"),
        *("--set", "transform={kind='Mixup'}", "--set", "descent={kind='SAM'}"),
        *("--set", "objective.risk={kind='DANN', adversary={dropout=0.1}}"),
        *("--set", "average={kind='EMA', decay=0.9, start=5}"),
        *("--set", "lr_schedule={kind='CosineSchedule', start=1, end=0, steps=60}"),
        *("--set", "lr_factors={'featurizer.1' = 0.1, head = {kind='StepSchedule', at=20, before=0, after=2}}"),
    ),
}


def start(folder: Path, options: tuple[str, ...]) -> subprocess.Popen[str]:
    """A process that begins the run of a folder, or goes on with it."""
    arguments = ("--resume", str(folder)) if folder.exists() else (*options, "--out", str(folder))
    return start_python("cli.py", "train", *arguments)


def untouched(folder: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Run a folder through; seconds from its appearance to its result, and to the process's end."""
    with start(folder, options) as process:
        wait(process, folder.exists)
        begun = time.monotonic()
        wait(process, (folder / "result.json").exists)
        trained = time.monotonic()
        ended(process)
        return trained - begun, time.monotonic() - begun


def killed(folder: Path, options: tuple[str, ...], moment: float) -> str | None:
    """Start or resume a run and kill it so many seconds after its first sign of life.

    Args:
        folder: of the run.
        options: how it was begun.
        moment: seconds after the folder appears or changes; negative: so many after the process's start.

    Returns:
        What the folder looked like when the process was dead; None if the run ended before.
    """
    before = _glimpse(folder)
    with start(folder, options) as process:
        if moment >= 0:
            wait(process, lambda: _glimpse(folder) != before)
        if not kill_after(process, abs(moment)):
            return None
    if not folder.exists():
        return "before there was a folder"
    lines = (folder / "metrics.jsonl").read_bytes().count(b"\n") if (folder / "metrics.jsonl").exists() else 0
    half = {path.name: whole_name(path.name) for path in folder.iterdir()}
    there = ", ".join(sorted(f"{whole}!" if whole else name for name, whole in half.items()))
    return f"{lines} lines of metrics; {there}"


def kill_often(
    parent: Path, kills: int, seed: int, variants: Mapping[str, tuple[str, ...]] = VARIANTS
) -> Iterator[str]:
    """Kill runs of all variants so many times in all; a line each kill and each comparison.

    Args:
        parent: folder to work in.
        kills: how many.
        seed: of the moments.
        variants: name to options of ``train``.

    Raises:
        Mismatch: a run that was killed and resumed ended in other bits, or left something behind.
    """
    random_moment = random.Random(seed)
    seconds = {}
    for name, options in variants.items():
        seconds[name] = untouched(parent / name / "untouched", options)
        yield f"{name}: untouched, {seconds[name][0]:.2f} s of training, {seconds[name][1]:.2f} s in all"
    done = run = 0
    while done < kills:
        name = list(variants)[run % len(variants)]
        training, whole = seconds[name]
        folder = parent / name / f"run-{run}"
        run += 1
        for _ in range(min(KILLS_A_RUN, kills - done)):
            # Mostly while it trains; some while it draws its figure, some while it still starts.
            span = random_moment.choice([training] * 7 + [whole] * 2 + [-whole])
            moment = random_moment.uniform(0, span)
            seen = killed(folder, variants[name], moment)
            if seen is None:
                yield f"        {name}, {folder.name}: ended before {moment:.2f} s"
                break
            done += 1
            yield f"kill {done:2d} {name}, {folder.name}, at {moment:6.2f} s: {seen}"
        if _names(folder) != FILES:
            with start(folder, variants[name]) as process:
                ended(process)
        compare(folder, parent / name / "untouched")
        yield f"        {name}, {folder.name}: the same bits as untouched"


def compare(folder: Path, whole: Path) -> None:
    """Compare two run folders bit by bit, apart from the seconds they took.

    Raises:
        Mismatch: they differ, or something was left behind.
    """
    left = [path.name for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}.")]
    if _names(folder) != FILES or left:
        raise Mismatch(f"{folder}: holds {_names(folder)}, expected {FILES}; beside it {left}")
    for name in ("config.toml", "metrics.jsonl", "figure.png"):
        if (folder / name).read_bytes() != (whole / name).read_bytes():
            raise Mismatch(f"{folder / name}: differs from that of {whole}")
    one, other = (dict(_leaves(_loaded(path / "checkpoint.pt"))) for path in (folder, whole))
    different = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    if different:
        raise Mismatch(f"{folder / 'checkpoint.pt'}: differs in {', '.join(sorted(different))}")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _loaded(path: Path) -> dict[str, Any]:
    import torch

    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return {name: value for name, value in loaded.items() if name != "seconds"}


def _leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value of a tree by its path; tensors as their type, shape and bytes."""
    import torch

    match tree:
        case torch.Tensor():
            yield path, (str(tree.dtype), tuple(tree.shape), tree.contiguous().numpy().tobytes())
        case dict():
            for key, value in tree.items():
                yield from _leaves(value, f"{path}.{key}")
        case list() | tuple():
            for index, value in enumerate(tree):
                yield from _leaves(value, f"{path}.{index}")
        case _:
            yield path, tree


def _glimpse(folder: Path) -> object:
    """What of a folder changes as soon as a process works in it."""
    try:
        return sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir())
    except FileNotFoundError:
        return None


def main() -> int:
    """Print a line a kill and a verdict; 1 if a run did not end in the same bits."""
    parser = argparse.ArgumentParser(description="Kill runs with SIGKILL, resume them, compare bit by bit.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        lines = kill_often(Path(parent), arguments.kills, arguments.seed)
        verdict = (
            f"{arguments.kills} kills: every run ended in the bits of the run that nobody touched, nothing left behind"
        )
        return report(lines, verdict)


if __name__ == "__main__":
    sys.exit(main())
