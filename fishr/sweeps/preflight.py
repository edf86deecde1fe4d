"""Refusals before the first job of a sweep."""

import ctypes
import platform
from collections.abc import Iterable
from pathlib import Path

from fishr.errors import InputError
from fishr.protocols.domainbed.job import Job
from fishr.training.compute import resolve_device
from fishr.training.state import initial_state


def check_input(jobs: Iterable[Job], data_dir: Path | None = None, device: str = "cpu") -> None:
    """Refuse bad input at once: build the data and the network of each data set, and the settings of each method."""
    resolve_device(device)
    methods, first = dict[tuple[str, str], Job](), dict[str, Job]()
    for job in jobs:
        methods.setdefault((job.dataset, job.algorithm), job)
        first.setdefault(job.dataset, job)
    for job in methods.values():
        try:
            job.experiment()
        except InputError as error:
            raise InputError(f"{job.dataset}, {job.algorithm}: {error}") from error
    for job in first.values():
        try:
            experiment = job.experiment()
            domains = experiment.data(experiment.seed, data_dir)
            names = job.settings.benchmark(job.dataset).environments
            count = sum(domain.name.endswith("_out") for domain in domains.evaluation)
            if count != len(names):
                raise InputError(f"got {count} environments in the data, expected {len(names)}: {', '.join(names)}")
            # The network may need a file of weights.
            initial_state(experiment, domains)
        except InputError as error:
            raise InputError(f"{job.dataset}: {error}") from error
    if platform.libc_ver()[0] == "glibc":
        # Hand the freed memory to the workers: this process only waits from now on.
        ctypes.CDLL(None).malloc_trim(0)
