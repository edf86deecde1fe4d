"""Bad input is told before the first job begins."""

from collections.abc import Iterable
from pathlib import Path

from fishr.errors import InputError
from fishr.protocols.domainbed.job import Job
from fishr.training.loop import resolve_device
from fishr.training.state import initial_state


def check_input(jobs: Iterable[Job], data_dir: Path | None = None, device: str = "cpu") -> None:
    """Build each data set and each network of some jobs once, as their first job does.

    Args:
        jobs: to be run.
        data_dir: where data files lie.
        device: of the jobs.

    Raises:
        InputError: no such device, data that are missing or damaged or have other environments than the benchmark, or
            weights that are missing.

    Example:
        >>> from fishr.protocols.domainbed.settings import Settings
        >>> check_input([Job("PACS", "ERM", (0,), 0, 0, Settings(features={"PACS": "nowhere.h5"}))])
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: PACS: data/nowhere.h5: no such file; give the path of a file that fishr wrote
    """
    resolve_device(device)
    first = dict[str, Job]()
    for job in jobs:
        first.setdefault(job.dataset, job)
    for job in first.values():
        try:
            _check(job, data_dir)
        except InputError as error:
            raise InputError(f"{job.dataset}: {error}") from error


def _check(job: Job, data_dir: Path | None) -> None:
    experiment = job.experiment()
    domains = experiment.data(experiment.seed, data_dir)
    names = job.settings.benchmark(job.dataset).environments
    count = sum(domain.name.endswith("_out") for domain in domains.evaluation)
    if count != len(names):
        raise InputError(f"got {count} environments in the data, expected {len(names)}: {', '.join(names)}")
    # The network may need a file of weights.
    initial_state(experiment, domains)
