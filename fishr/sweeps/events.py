"""What happens in a sweep, as frozen events; all ways to run one tell the same."""

from attrs import frozen

from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import Outcome
from fishr.sweeps.failures import Failure


@frozen
class JobDone:
    """A job has its results.

    Args:
        job: which.
        outcome: of it.

    Example:
        >>> JobDone(Job("PACS", "ERM", (0,), 0, 0), Outcome(seconds=1.5, validation=0.8)).outcome.done
        True
    """

    job: Job
    outcome: Outcome


@frozen
class JobRetried:
    """The process of a job died; the job goes on from its checkpoint in another one.

    Args:
        job: which.
        message: how it died.

    Example:
        >>> JobRetried(Job("PACS", "ERM", (0,), 0, 0), "died of SIGKILL").message
        'died of SIGKILL'
    """

    job: Job
    message: str


@frozen
class JobFailed:
    """A job was given up; the sweep goes on with the others.

    Args:
        job: which.
        failure: what its folder keeps of it.

    Example:
        >>> JobFailed(Job("PACS", "ERM", (0,), 0, 0), Failure("risk is nan", tries=1)).failure.tries
        1
    """

    job: Job
    failure: Failure


SweepEvent = JobDone | JobRetried | JobFailed
