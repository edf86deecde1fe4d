"""``python -m benchmarks.kill_and_cache [--kills 20] [--seed 0]``: do caches survive kill -9 while they are written?

Each kind of cache (features, per-sample gradients, statistics over time) is written by a process of its own that is
killed at random moments. After each kill the file must be absent or right, and so must every part; at last the
writer is let through, and its arrays are compared with those that nobody disturbed.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.killing import Mismatch, ended, kill_after, report, start_python, wait

KILLS_A_FILE = 4
# Small parts, so that there are many moments to be killed at.
_PART_BYTES = 1 << 18
_STATISTICS = ("--set", "steps=60", "--set", "checkpoint_every=7", "--set", "objective.penalty.fishr.schedule.at=30")
_KINDS = {"features": "fishr-features", "gradients": "fishr-gradients", "statistics": "fishr-statistics"}
KINDS = tuple(_KINDS)


def file_of(kind: str, folder: Path) -> Path:
    """Where the cache of a kind lies in the folder of one attempt."""
    return folder / ("run/statistics.h5" if kind == "statistics" else f"{kind}.h5")


def start(kind: str, folder: Path) -> "subprocess.Popen[str]":
    """A process that begins to write, or goes on with it."""
    folder.mkdir(parents=True, exist_ok=True)
    return start_python("-m", "benchmarks.kill_and_cache", "--write", kind, str(folder))


def write(kind: str, folder: Path) -> None:
    """What the process does: the command that a person would give, with small parts."""
    import fishr.data.caches.domain_writing as writing
    from fishr.commands import main

    writing.PART_BYTES = _PART_BYTES
    run, small = folder / "run", ("--set", "data.training_images=1000")
    path = str(file_of(kind, folder))
    if kind == "statistics":
        begun = ("--resume", str(run)) if run.exists() else ("colored-digits", *_STATISTICS, "--out", str(run))
        main(["train", *begun, *([] if run.exists() else ["--record-statistics", "every=1,samples=50"])])
    main(["cache", kind, "colored-digits", *small, "-o", path, *(["--per-sample"] if kind == "gradients" else [])])


def untouched(kind: str, folder: Path) -> tuple[dict[str, Any], float]:
    """The content of an undisturbed file, and the seconds from the first sign of writing to the whole file."""
    with start(kind, folder) as process:
        wait(process, lambda: bool(_glimpse(kind, folder)))
        begun = time.monotonic()
        wait(process, file_of(kind, folder).exists)
        seconds = time.monotonic() - begun
        ended(process)
        return content(kind, folder), seconds


def content(kind: str, folder: Path) -> dict[str, Any]:
    """What a file holds, apart from the time of its making."""
    from fishr.data.caches import load_tree

    tree: dict[str, Any] = dict(load_tree(file_of(kind, folder), _KINDS[kind]))
    tree["provenance"] = {name: value for name, value in tree["provenance"].items() if name != "created"}
    return dict(_leaves(tree))


def killed(kind: str, folder: Path, moment: float) -> str | None:
    """Begin or go on, and kill the process so many seconds after its first sign of writing.

    Returns:
        What was left; None if it had ended before.
    """
    before = _glimpse(kind, folder)
    with start(kind, folder) as process:
        wait(process, lambda: _glimpse(kind, folder) != before)
        if not kill_after(process, moment):
            return None
    half = [path.name for path in folder.rglob("*.fishr-partial")]
    parts = list(file_of(kind, folder).with_name(f"{file_of(kind, folder).name}.parts").glob("*.h5"))
    return f"{'file' if file_of(kind, folder).exists() else 'no file'}, {len(parts)} parts, {len(half)} half-written"


def check_left(kind: str, folder: Path, whole: dict[str, Any]) -> None:
    """What a killed writer left reads rightly.

    Raises:
        Mismatch: the file is there and is not what it should be.
        InputError: a part is damaged.
    """
    from fishr.data.caches.unfinished import Parts

    path = file_of(kind, folder)
    if path.exists():
        compare(content(kind, folder), whole, path)
    parts = Parts.existing(path)
    for number in () if parts is None else parts.done:
        parts.read(number)  # pyright: ignore[reportOptionalMemberAccess]


def compare(found: dict[str, Any], whole: dict[str, Any], path: Path) -> None:
    """Two contents, bit by bit.

    Raises:
        Mismatch: they differ.
    """
    different = sorted(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))
    if different:
        raise Mismatch(f"{path}: differs in {', '.join(different)}")


def kill_often(parent: Path, kills: int, seed: int, kinds: tuple[str, ...] = KINDS) -> Iterator[str]:
    """Kill writers of each kind so many times; a line each kill and each comparison.

    Raises:
        Mismatch: a file was wrong, at any time, or something was left behind at the end.
    """
    draw = random.Random(seed)
    for kind in kinds:
        whole, seconds = untouched(kind, parent / kind / "untouched")
        expected = _names(parent / kind / "untouched")
        yield f"{kind}: untouched, {seconds:.2f} s of writing"
        done = attempt = 0
        while done < kills:
            folder = parent / kind / f"attempt-{attempt}"
            attempt += 1
            for _ in range(min(KILLS_A_FILE, kills - done)):
                moment = draw.uniform(0, seconds)
                left = killed(kind, folder, moment)
                if left is None:
                    # Other work on the machine made the first one slow.
                    seconds *= 0.8
                    break
                done += 1
                check_left(kind, folder, whole)
                yield f"kill {done:2d} {kind}, {folder.name}, at {moment:5.2f} s: {left}"
            with start(kind, folder) as process:
                ended(process)
            compare(content(kind, folder), whole, file_of(kind, folder))
            if _names(folder) != expected:
                raise Mismatch(f"{folder}: holds {_names(folder)}, expected {expected}")
            yield f"        {kind}, {folder.name}: the same arrays as untouched, nothing left behind"


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}/{key}")
    else:
        array = getattr(tree, "tobytes", None)
        yield path, tree if array is None else (tree.dtype.str, tree.shape, array())


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _glimpse(kind: str, folder: Path) -> object:
    """What changes as soon as a process writes."""
    path = file_of(kind, folder)
    parts = path.with_name(f"{path.name}.parts")
    return [(each.name, each.stat().st_mtime_ns) for each in (path, parts) if each.exists()]


def main() -> int:
    """Print a line a kill and a verdict; 1 if a file was ever wrong."""
    parser = argparse.ArgumentParser(description="Kill writers of caches with SIGKILL, look at what they leave.")
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--write", nargs=2, metavar=("KIND", "FOLDER"), help="be the writer")
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write[0], Path(arguments.write[1]))
    with tempfile.TemporaryDirectory() as parent:
        lines = kill_often(Path(parent), arguments.kills, arguments.seed)
        verdict = (
            f"{arguments.kills} kills of each kind: "
            "no file was ever wrong, and every one was finished to the same arrays"
        )
        return report(lines, verdict)


if __name__ == "__main__":
    sys.exit(main())
