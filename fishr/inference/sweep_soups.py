"""Means of the draws of each method of a sweep, with results that its tables have as rows."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Literal

from attrs import frozen

from fishr.errors import InputError
from fishr.files import write_atomically
from fishr.inference.averaging import uniform_soup, write_average
from fishr.inference.greedy_soup import greedy_soup
from fishr.inference.trained_model import read_run
from fishr.protocols.domainbed.records import DONE, RESULTS, JobKey
from fishr.sweeps.folder import JOBS, finished_jobs, planned_keys
from fishr.sweeps.job_results import dump_lines
from fishr.training.evaluation import score_checkpoint
from fishr.training.run_folder import AVERAGE, CHECKPOINT

Soup = Literal["uniform", "greedy"]


@frozen
class SweepSoup:
    """One row's cell of one trial: the mean of the draws of a method, or why there is none."""

    key: JobKey  # of the results; its draw is 0
    runs: int  # that were averaged
    test: float | None  # accuracy on the test environment, 0 to 1
    reason: str = ""


def average_sweep(
    sweep: Path,
    out: Path,
    soup: Soup = "uniform",
    data_dir: Path | None = None,
    device: str = "cpu",
    plugins: Sequence[str] = (),
) -> Iterator[SweepSoup]:
    """Average the draws of each method, test environment and trial of a sweep, and yield each mean's accuracy.

    ``out`` has a folder like a job's for each: that of ``write_average``, with a results.jsonl of its accuracies on all
    environments, under the name "METHOD, uniform soup". ``fishr sweep collect SWEEP OUT`` makes tables of both. A mean
    is written when all draws of the plan are done; those whose loss diverged are left out. The same call goes on.

    Args:
        sweep: Folder of a sweep with ``keep = "weights"``.
        out: Folder of the means.
        soup: ``"uniform"``, as DiWA, or ``"greedy"``; see ``uniform_soup`` and ``greedy_soup``.
        data_dir: Folder of the data files.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto".
        plugins: Modules that the plan names.

    Raises:
        InputError: No sweep, one of a single draw, weights that were not kept, or runs that began at different weights.

    Example:
        >>> list(average_sweep(Path("sweep"), Path("soups")))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: sweep: no sweep is there, it has no plan.toml and jobs/; start one with fishr sweep run

    Source: Ramé et al., DiWA, NeurIPS 2022; its rows average 20 draws of a trial, or those of all trials.
    """
    planned, finished = planned_keys(sweep), finished_jobs(sweep)
    groups = dict[JobKey, list[JobKey]]()
    for key in sorted(planned):
        # Jobs of two test environments select hyper-parameters, of which a mean has none.
        if len(key.test_envs) == 1:
            named = f"{key.algorithm}, {soup} soup"
            groups.setdefault(JobKey(key.dataset, named, key.test_envs, 0, key.trial_seed), []).append(key)
    if all(len(draws) < 2 for draws in groups.values()):
        raise InputError(f"{sweep}: got a plan of one draw, expected two or more to average; set draws in the plan")
    for mean, draws in groups.items():
        runs = [job for key in draws if (job := finished.get(key)) is not None]
        if missing := sum(key not in finished for key in draws):
            yield SweepSoup(mean, 0, None, f"{missing} of {len(draws)} draws are not done")
        elif len(runs) < 2:
            yield SweepSoup(mean, 0, None, f"{len(draws) - len(runs)} of {len(draws)} draws diverged")
        else:
            place = out / JOBS / sha256(str(mean).encode()).hexdigest()[:32]
            if not (place / DONE).exists():
                # A call that was killed may have left it.
                if not (place / CHECKPOINT).exists():
                    average = (
                        uniform_soup if soup == "uniform" else partial(greedy_soup, data_dir=data_dir, device=device)
                    )
                    write_average(average(runs, plugins=plugins), place)
                _score(place, mean, runs[0], data_dir, device, plugins)
            line = json.loads((place / RESULTS).read_text())
            yield SweepSoup(mean, line["runs"], line[f"env{mean.test_envs[0]}_in_acc"])


def _score(place: Path, mean: JobKey, job: Path, data_dir: Path | None, device: str, plugins: Sequence[str]) -> None:
    """Write the results of a mean as a job's, with the settings of one of the jobs that it is of."""
    _, scores = score_checkpoint(read_run(place, plugins).experiment, place, data_dir, device)
    shares = [run["share"] for run in json.loads((place / AVERAGE).read_text())["runs"]]
    last = json.loads((job / RESULTS).read_text().splitlines()[-1])
    line = {
        "args": last["args"] | {"algorithm": mean.algorithm, "hparams_seed": mean.hparams_seed},
        "hparams": {},
        "step": last["step"],
        "runs": sum(share > 0 for share in shares),
    }
    line |= {f"{score.name}_acc": score.accuracy for score in scores}
    write_atomically(place / RESULTS, dump_lines([line]))
    write_atomically(place / DONE, b"{}\n")
