"""``python -m benchmarks.kill_and_sweep [--kills 5] [--seed 0]``: does a sweep survive kill -9 to the same tables?

A sweep over a file of features is started by ``cli.py sweep run``; its scheduler or one of its workers is killed at
random moments, and it is resumed; at last it is let through. Its results and tables are then compared with those of a
sweep that nobody touched.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.killing import ROOT, Mismatch, ended, report, start_python, wait
from fishr.locks import LOCK

ENVIRONMENTS, CLASSES, WIDTH = "ACPS", 7, 64
TIMES = ("step_time", "mem_gb")
JOB_FILES = ["config.toml", "done", "job.toml", "log.txt", "result.json", "results.jsonl"]
_GONE_WITHIN = 10.0  # seconds


def write_plan(parent: Path, draws: int, steps: int) -> Path:
    """A plan of 8 · draws jobs over a file of features beside it."""
    import numpy as np

    from fishr.data.caches import Section
    from fishr.data.caches.feature_cache import write_features

    generator, rows = np.random.default_rng(0), 300
    labels = [np.arange(rows) % CLASSES for _ in ENVIRONMENTS]
    centers = generator.normal(size=(CLASSES, WIDTH))
    features = [centers[y] + 2 * generator.normal(size=(rows, WIDTH)) + i for i, y in enumerate(labels)]

    def compute(domain: int, start: int, stop: int) -> dict[str, Any]:
        found = {"features": features[domain][start:stop], "labels": labels[domain][start:stop]}
        return found | {"logits": np.zeros((stop - start, CLASSES)), "ids": np.arange(start, stop)}

    head = {"text": "", "outputs": CLASSES, "parameters": {}}
    sections = [Section(name, "training", rows) for name in ENVIRONMENTS]
    write_features(parent / "features.h5", {"dtype": "float32"}, head, sections, compute, part_rows=rows)
    plan, features_file = parent / "plan.toml", json.dumps(str(parent / "features.h5"))
    plan.write_text(
        f'datasets = ["PACS"]\nalgorithms = ["ERM", "Fishr"]\ndraws = {draws}\ntrials = 1\n[settings]\n'
        f"steps = {steps}\nevaluate_every = {max(1, steps // 5)}\nfeatures.PACS = {features_file}\n"
    )
    return plan


def start(plan: Path, folder: Path, workers: int = 2) -> subprocess.Popen[str]:
    """A process that begins a sweep or goes on with it."""
    begun = (folder / "plan.toml").exists()
    arguments = ("resume", str(folder)) if begun else ("run", str(plan), "--out", str(folder))
    return start_python("cli.py", "sweep", *arguments, "--workers", str(workers), "--device", "cpu")


def untouched(plan: Path, folder: Path) -> float:
    """Let a sweep through; the seconds it took from its folder's appearance."""
    with start(plan, folder) as process:
        wait(process, folder.exists)
        begun = time.monotonic()
        ended(process)
        return time.monotonic() - begun


def done(folder: Path) -> int:
    """How many jobs of a sweep are done."""
    return len(list(folder.glob("jobs/*/done")))


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since it was first asked."""
    begun = list[float]()

    def passed() -> bool:
        begun.append(time.monotonic())
        return begun[-1] - begun[0] >= seconds

    return passed


def killed(plan: Path, folder: Path, due: Callable[[], bool], victim: str, workers: int = 2) -> str | None:
    """Go on with a sweep and kill a process of it.

    Args:
        plan: of the sweep.
        folder: of the sweep.
        due: whether it is time, once the first worker has appeared.
        victim: "scheduler", of which no worker may be left, or "worker", of which the sweep goes on.

    Returns:
        How many jobs were done by then; None if the sweep ended before.

    Raises:
        Mismatch: a worker outlived its scheduler, or the scheduler its worker's death badly.
    """
    with start(plan, folder, workers) as process:
        wait(process, lambda: bool(_workers(folder)))
        wait(process, due)
        alive = _workers(folder)
        if process.poll() is not None or not alive:
            ended(process)
            return None
        if victim == "worker":
            os.kill(alive[0], signal.SIGKILL)
            # Its job goes on in another process; only then is the whole stopped.
            wait(process, lambda: bool(set(_workers(folder)) - set(alive)))
            if process.poll() not in (None, 0):
                raise Mismatch(f"a sweep whose worker was killed ended with exit code {process.returncode}")
        process.kill()
        process.communicate()
    deadline = time.monotonic() + _GONE_WITHIN
    while left := _workers(folder):
        if time.monotonic() > deadline:
            raise Mismatch(f"workers {left} outlived their scheduler by {_GONE_WITHIN:g} s")
        time.sleep(0.01)
    return f"{done(folder)} jobs done"


def kill_often(parent: Path, kills: int, seed: int, draws: int = 8, steps: int = 300) -> Iterator[str]:
    """Kill one sweep so many times; a line each kill and one for the comparison.

    Args:
        parent: folder to work in.
        kills: how many.
        seed: of the moments and the victims.
        draws: the sweep has 8 jobs for each.
        steps: of each job.

    Raises:
        Mismatch: the sweep ended before, or in other results, or something was left behind.
    """
    chosen = random.Random(seed)
    plan, whole, folder = write_plan(parent, draws, steps), parent / "untouched", parent / "killed"
    seconds = untouched(plan, whole)
    yield f"untouched: {8 * draws} jobs in {seconds:.1f} s"
    for number in range(1, kills + 1):
        victim, moment = chosen.choice(("scheduler", "scheduler", "worker")), chosen.uniform(0, seconds / kills)
        seen = killed(plan, folder, after(moment), victim)
        if seen is None:
            raise Mismatch(f"{folder}: ended before kill {number} of {kills}; take fewer, or more draws")
        yield f"kill {number:2d} of a {victim} at {moment:5.2f} s: {seen}"
    with start(plan, folder) as process:
        ended(process)
    compare(folder, whole)
    yield f"        {8 * draws} jobs: the same results and tables as untouched"


def files_of(job: Path) -> list[str]:
    """Return the names in a job's folder, without the lock file that a process leaves if it is killed at its end."""
    return sorted({path.name for path in job.iterdir()} - {LOCK})


def compare(folder: Path, whole: Path) -> None:
    """Compare two sweeps, apart from the times they took.

    Raises:
        Mismatch: they differ, or something was left behind.
    """
    names, expected = (sorted(path.name for path in each.glob("jobs/*")) for each in (folder, whole))
    if names != expected:
        raise Mismatch(f"{folder}: holds the jobs {names}, expected {expected}")
    for name in names:
        job = folder / "jobs" / name
        found = files_of(job)
        if found != JOB_FILES:
            raise Mismatch(f"{job}: holds {found}, expected {JOB_FILES}")
        if results(job) != results(whole / "jobs" / name):
            raise Mismatch(f"{job / 'results.jsonl'}: differs from that of {whole}")
    if tables(folder) != tables(whole):
        raise Mismatch(f"{folder}: its tables differ from those of {whole}")


def results(job: Path) -> list[dict[str, Any]]:
    """The lines of a job's results without its times."""
    lines = [json.loads(line) for line in (job / "results.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def tables(folder: Path) -> Any:
    """What ``fishr sweep collect`` makes of a sweep."""
    command = [sys.executable, "cli.py", "sweep", "collect", str(folder), "--as", "json"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)["tables"]


def _workers(folder: Path) -> list[int]:
    """Ids of the worker processes of a sweep."""
    found = list[int]()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and b"fishr.sweeps.worker" in (line := (entry / "cmdline").read_bytes()):
                dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                found += [int(entry.name)] if json.dumps(str(folder)).encode() in line and not dead else []
        except OSError:
            continue
    return found


def main() -> int:
    """Print a line a kill and a verdict; 1 if the sweep did not end in the same results."""
    parser = argparse.ArgumentParser(description="Kill sweeps with SIGKILL, resume them, compare their tables.")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        lines = kill_often(Path(parent), arguments.kills, arguments.seed)
        verdict = (
            f"{arguments.kills} kills: the results and tables of the sweep that nobody touched, nothing left behind"
        )
        return report(lines, verdict)


if __name__ == "__main__":
    sys.exit(main())
