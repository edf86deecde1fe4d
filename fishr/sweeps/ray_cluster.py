"""The jobs of a sweep as tasks of a Ray cluster."""

import socket
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import attrs

from fishr.configuration import structure, unstructure
from fishr.errors import InputError, reason
from fishr.extras import from_extra
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import Conditions
from fishr.sweeps.groups import attempt_together, groups_of
from fishr.sweeps.job_events import SweepEvent, settle
from fishr.sweeps.job_files import Outcome

LOCAL, RUNNING = "local", "auto"
RETRIES = 3
_PATIENCE = 5.0  # seconds


def run_on_ray(
    jobs: Iterable[Job], conditions: Conditions, address: str, jobs_per_gpu: int = 1, plugins: tuple[str, ...] = ()
) -> Generator[SweepEvent]:
    """Yield the ends of jobs that run as tasks of a Ray cluster; those of a lost node resume elsewhere."""
    waiting = tuple(jobs)
    if not waiting:
        return
    with _joined(address) as ray:
        resources, where = _resources(ray, conditions, jobs_per_gpu)
        remote = ray.remote(_task).options(**resources, max_retries=RETRIES)
        here = str(Path.cwd())
        groups = groups_of(waiting, where, int(ray.cluster_resources().get("CPU", 1) // conditions.threads))
        pending = {remote.remote([*map(unstructure, jobs)], where, here, plugins): jobs for jobs in groups}
        while pending:
            (ended, *_), _ = ray.wait(list(pending), num_returns=1)
            jobs = pending.pop(ended)
            try:
                outcomes, tries = ray.get(ended), 1
            except ray.exceptions.RayTaskError as error:
                outcomes, tries = [Outcome(message=_line(error, -1))] * len(jobs), 1
            except ray.exceptions.RayError as error:
                if len(jobs) > 1:
                    pending |= {remote.remote([unstructure(job)], where, here, plugins): (job,) for job in jobs}
                    continue
                outcomes, tries = [Outcome(message=f"its process died: {_line(error)}")], RETRIES + 1
            for job, outcome in zip(jobs, outcomes, strict=True):
                yield settle(job, tries, outcome, where.folder)


def _task(
    tables: list[Mapping[str, Any]], conditions: Conditions, folder: str, plugins: tuple[str, ...]
) -> list[Outcome]:
    """Return the outcomes of a group of jobs, in order."""
    # Relative paths start where the sweep was started.
    with chdir(folder):
        jobs = [structure(table, Job, plugins) for table in tables]
        outcomes = {job.name: outcome for job, outcome in attempt_together(jobs, conditions)}
        return [outcomes[job.name] for job in jobs]


@contextmanager
def _joined(address: str) -> Generator[Any]:
    """Return Ray, connected to a cluster while the context lasts; tasks that still run then are ended."""
    ray = from_extra("ray", "ray", "--ray", ", or leave --ray out")
    if address not in (LOCAL, RUNNING):
        _check_answers(address)
    dashboard = {"include_dashboard": False} if address == LOCAL else {}
    # Ray puts the working directory first on the path of each worker, where any file would stand in for a module.
    with tempfile.TemporaryDirectory(prefix="fishr-") as empty:
        try:
            with chdir(empty):
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", **dashboard)
        # Ray ends the process that it cannot connect.
        except (Exception, SystemExit) as error:
            raise InputError(f"--ray: got {address!r}, where no cluster can be joined ({_line(error)})") from error
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuse an address where nothing answers; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"--ray: got {address!r}, expected HOST:PORT, auto or local")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise InputError(
            f"--ray: got {address!r}, where nothing answers ({reason(error)}); start a cluster by ray start --head, "
            "or use --ray local"
        ) from error


def _resources(ray: Any, conditions: Conditions, jobs_per_gpu: int) -> tuple[dict[str, float], Conditions]:
    """Return the resources of each task, and the conditions with its device; refuse tasks that would wait forever."""
    nodes: list[dict[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in ("CPU", "GPU")}
    if most["CPU"] < conditions.threads:
        raise InputError(f"threads: got {conditions.threads}, expected at most {most['CPU']:g}, of the largest node")
    if conditions.device == "cuda" and not most["GPU"]:
        raise InputError("--device: got cuda, expected auto or cpu: no node of the cluster has a GPU")
    device = "cuda" if conditions.device != "cpu" and most["GPU"] else "cpu"
    gpus = {"num_gpus": 1 / jobs_per_gpu} if device == "cuda" else {}
    where = attrs.evolve(
        conditions,
        folder=conditions.folder.absolute(),
        data_dir=conditions.data_dir and conditions.data_dir.absolute(),
        device=device,
    )
    return {"num_cpus": float(conditions.threads), **gpus}, where


def _line(error: BaseException, index: int = 0) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[index] if lines else type(error).__name__
