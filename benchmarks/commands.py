"""Wall time of whole commands: of one step beside the import of torch, and of a job beside DomainBed's own process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from benchmarks.machine import interleaved
from benchmarks.table import Cell, Spread, Table, Verdict

_IMPORT, _STEP, _OURS, _THEIRS = (
    "import torch",
    "fishr train, one step",
    "fishr train, a job",
    "DomainBed, the same job",
)
# 60 steps, evaluated after the first and the last.
_STEPS, _EVERY = 60, 59
_BYTE_CODE = Path(tempfile.gettempdir(), "fishr-benchmark-byte-code")
_TARGETS = {_STEP: 5 / 3, _OURS: 0.5}


def table(quick: bool, domainbed: Path | None = None) -> Table:
    """Seconds of commands, each in a process of its own; jobs of Colored MNIST where a checkout of DomainBed is given.

    MNIST is read from the folder $FISHR_DATA_DIR, by default data.
    """
    with tempfile.TemporaryDirectory() as place:
        folders = (str(Path(place, str(number))) for number in count())

        def train(*options: str) -> Callable[[], object]:
            program = "from fishr.commands import main; main()"
            return lambda: _run("-c", program, "train", *options, "--out", next(folders))

        short = {_IMPORT: lambda: _run("-c", "import torch"), _STEP: train("colored-digits", "--steps", "1")}
        rows = _rows(short, _IMPORT, 7, quick)
        if domainbed is None or quick:
            print("A job of Colored MNIST is measured beside DomainBed's with --domainbed PATH, without --quick.")
        else:
            data = str(Path(os.environ.get("FISHR_DATA_DIR", "data")).resolve())
            job = ("--benchmark", "ColoredMNIST", "--algorithm", "ERM", "--test-env", "2", "--steps", str(_STEPS))
            jobs = {
                _THEIRS: lambda: _domainbed_job(domainbed, data, next(folders)),
                _OURS: train(*job, "--set", f"settings.evaluate_every={_EVERY}", "--data-dir", data),
            }
            rows += _rows(jobs, _THEIRS, 3, quick=True)
    title = f"Whole commands, a job is {_STEPS} steps and 2 evaluations of Colored MNIST; [quartiles]"
    return Table(title, ("command", "ms", "times the first", "target"), tuple(rows))


def _rows(commands: Mapping[str, Callable[[], object]], base: str, rounds: int, quick: bool) -> list[tuple[Cell, ...]]:
    """Return a row for each command, with its time over that of the base."""
    times = interleaved(commands, rounds, quick)
    rows = list[tuple[Cell, ...]]()
    for name in commands:
        ratio = times.ratio(name, base)
        target = _TARGETS.get(name)
        verdict = None if target is None else Verdict(ratio[0], target, at_least=False)
        rows.append((name, times.milliseconds(name, 0), Spread(*ratio), verdict))
    return rows


def _domainbed_job(checkout: Path, data: str, out: str) -> None:
    options = {"data_dir": data, "algorithm": "ERM", "dataset": "ColoredMNIST", "test_envs": "2", "output_dir": out}
    options |= {"steps": str(_STEPS), "checkpoint_freq": str(_EVERY)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    _run("-m", "benchmarks.checkout", str(checkout), *words, "--skip_model_save")


def _run(*words: str) -> None:
    # Byte code is kept from the warm-up on, as it is of an installed package.
    kept = {"PYTHONPYCACHEPREFIX": str(_BYTE_CODE), "PYTHONDONTWRITEBYTECODE": ""}
    silent = subprocess.DEVNULL
    done = subprocess.run(
        [sys.executable, *words], stdout=silent, stderr=subprocess.PIPE, text=True, env=os.environ | kept, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(f"Error: {' '.join(words)}: exit code {done.returncode}: {reason}")
