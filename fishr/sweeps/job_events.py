"""Events of a sweep's jobs."""

from pathlib import Path

from attrs import frozen

from fishr.protocols.domainbed.job import Job
from fishr.sweeps.folder import job_folder, write_job
from fishr.sweeps.job_files import Failure, Outcome, write_failure


@frozen
class JobDone:
    """A job has its results."""

    job: Job
    outcome: Outcome


@frozen
class JobRetried:
    """The process of a job died; another one continues the job from its checkpoint."""

    job: Job
    message: str


@frozen
class JobFailed:
    """A job failed; the sweep continues with the others."""

    job: Job
    failure: Failure


SweepEvent = JobDone | JobRetried | JobFailed


def settle(job: Job, tries: int, outcome: Outcome, sweep: Path) -> JobDone | JobFailed:
    """Return the event of a job's end; write the failure of one that failed into its folder in the sweep's."""
    if outcome.message is None:
        return JobDone(job, outcome)
    folder = job_folder(sweep, job)
    # Its process may have died before it wrote which job it was.
    write_job(folder, job)
    return JobFailed(job, write_failure(folder, outcome.message, tries))
