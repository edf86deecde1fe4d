"""A sweep in parts, so that several machines or array tasks work in one folder."""

from attrs import frozen

from fishr.errors import InputError
from fishr.protocols.domainbed.job import Job


@frozen
class Part:
    """Every ``of``-th job of a sweep, from the one of number ``index`` on.

    Args:
        index: from 0.
        of: parts in all.

    Raises:
        InputError: no such part.

    Example:
        >>> Part(3, of=3)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: part: got 3/3, expected I/N with I from 0 to N − 1, such as 0/8
    """

    index: int
    of: int

    def __attrs_post_init__(self) -> None:
        """Refuse a part that there is not."""
        if not 0 <= self.index < self.of:
            raise InputError(f"part: got {self}, expected I/N with I from 0 to N − 1, such as 0/8")

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def share(self, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
        """The jobs of this part.

        Example:
            >>> jobs = tuple(Job("PACS", "ERM", (0,), draw, trial_seed=0) for draw in range(5))
            >>> [job.hparams_seed for job in Part(1, of=3).share(jobs)]
            [1, 4]
        """
        return jobs[self.index :: self.of]


def parse_part(text: str) -> Part:
    """The part that a text such as 0/8 names.

    Args:
        text: index and number of parts.

    Raises:
        InputError: it names none.

    Example:
        >>> parse_part("0/8")
        Part(index=0, of=8)
    """
    index, slash, of = text.partition("/")
    if not (slash and index.isdecimal() and of.isdecimal()):
        raise InputError(f"part: got {text!r}, expected I/N with I from 0 to N − 1, such as 0/8")
    return Part(int(index), int(of))
