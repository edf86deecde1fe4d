"""The plan of a sweep: data sets × algorithms × test environments × draws × trials; and its parts."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal, get_args

from attrs import field, frozen

from fishr.errors import InputError
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.training.checks import one_of, whole

TestSets = Literal["single", "single_and_pairs"]
Keep = Literal["results", "weights"]
# All of DomainBed's data sets, algorithms and pairs of test environments are a quarter of this.
MOST_JOBS = 1_000_000


def _keep(plan: object, attribute: Any, value: Keep) -> None:
    one_of(*get_args(Keep))(plan, attribute, value)


@frozen
class Plan:
    """Everything that decides a sweep; a TOML file of these fields.

    Args:
        datasets: by DomainBed's names, or names of ``settings.own``.
        algorithms: by DomainBed's names.
        test_envs: ``"single"``: each environment is tested alone; ``"single_and_pairs"``: and each pair of them, which
            leave-one-domain-out selection needs; or the sets themselves, indices ascending.
        draws: hyper-parameter draws, 0 to draws − 1; draw 0 is the defaults.
        trials: splits, 0 to trials − 1.
        threads: of each job's process; the last bits of a result depend on it.
        keep: what a finished job keeps: its ``"results"``, or also its ``"weights"``, which ``fishr evaluate`` and
            ``analyze`` need, and the metrics of every step.
        settings: what all jobs share.

    Raises:
        InputError: nothing to do, something twice, a data set, algorithm or environment that there is not, or more
            than ``MOST_JOBS`` jobs.

    Example:
        >>> plan = Plan(("ColoredMNIST",), ("ERM", "Fishr"), "single_and_pairs")
        >>> len(plan.jobs())
        720

    Source:
        The sweep of Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """

    datasets: tuple[str, ...]
    algorithms: tuple[str, ...]
    test_envs: TestSets | tuple[tuple[int, ...], ...] = "single"
    draws: int = field(default=20, validator=whole(1))
    trials: int = field(default=3, validator=whole(1))
    threads: int = field(default=1, validator=whole(1))
    keep: Keep = field(default="results", validator=_keep)
    settings: Settings = field(factory=Settings)

    def __attrs_post_init__(self) -> None:
        """Refuse a plan whose jobs could not run."""
        for name, listed in (("datasets", self.datasets), ("algorithms", self.algorithms)):
            if not listed or len(set(listed)) < len(listed):
                raise InputError(f"{name}: got {list(listed)}, expected one or more names, each once")
        sets = self.test_envs
        if isinstance(sets, str) and sets not in ("single", "single_and_pairs"):
            raise InputError(f"test_envs: got {sets!r}, expected 'single', 'single_and_pairs' or sets of indices")
        if not isinstance(sets, str) and (not sets or len(set(sets)) < len(sets)):
            raise InputError(f"test_envs: got {_lists(sets)}, expected one or more sets, each once")
        for one in () if isinstance(sets, str) else sets:
            if not one or list(one) != sorted(one):
                raise InputError(f"test_envs: got {list(one)}, expected one or more indices in ascending order")
        count = self.draws * self.trials * len(self.algorithms) * sum(len(self.test_sets(d)) for d in self.datasets)
        if count > MOST_JOBS:
            raise InputError(
                f"plan: got {count:,} jobs ({self.draws:,} draws, {self.trials:,} trials), "
                f"expected at most {MOST_JOBS:,}; take fewer draws or trials, or split the plan"
            )
        for dataset in self.datasets:
            for algorithm in self.algorithms:
                for envs in self.test_sets(dataset):
                    Job(dataset, algorithm, envs, hparams_seed=0, trial_seed=0, settings=self.settings)

    def test_sets(self, dataset: str) -> tuple[tuple[int, ...], ...]:
        """The sets of environments that are held back on a data set, in order.

        Args:
            dataset: one of the plan's.

        Example:
            >>> Plan(("ColoredMNIST",), ("ERM",), "single_and_pairs").test_sets("ColoredMNIST")
            ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
        """
        if not isinstance(self.test_envs, str):
            return self.test_envs
        benchmark = self.settings.benchmark(dataset)
        tested = range(len(benchmark.environments)) if benchmark.tested is None else benchmark.tested
        pairs = combinations(range(len(benchmark.environments)), 2) if self.test_envs == "single_and_pairs" else ()
        return (*((index,) for index in tested), *(pair for pair in pairs if not set(pair).isdisjoint(tested)))

    def jobs(self) -> tuple[Job, ...]:
        """Every job, in the order in which they begin: by data set, algorithm, trial, test environments and draw.

        Example:
            >>> jobs = Plan(("PACS",), ("ERM",), draws=2, trials=1).jobs()
            >>> [(job.test_envs, job.hparams_seed) for job in jobs[:3]]
            [((0,), 0), ((0,), 1), ((1,), 0)]
        """
        return tuple(
            Job(dataset, algorithm, envs, draw, trial, self.settings)
            for dataset in self.datasets
            for algorithm in self.algorithms
            for trial in range(self.trials)
            for envs in self.test_sets(dataset)
            for draw in range(self.draws)
        )


def first_difference(kept: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """What distinguishes two plans, as people read it; None of equal ones.

    Args:
        kept: table of a sweep folder's plan.
        given: table of another one.

    Example:
        >>> from fishr.configuration import unstructure
        >>> plans = [unstructure(Plan(("PACS",), ("ERM",), settings=Settings(steps=steps))) for steps in (None, 100)]
        >>> first_difference(*plans)
        'settings.steps: the folder has the default, the plan given has 100'
    """
    one, other = _flat(kept), _flat(given)
    for key in one | other:
        if one.get(key) != other.get(key):
            has, wants = (repr(table[key]) if key in table else "the default" for table in (one, other))
            return f"{key}: the folder has {has}, the plan given has {wants}"
    return None


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat = dict[str, Any]()
    for key, value in table.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return flat


def _lists(sets: tuple[tuple[int, ...], ...]) -> list[list[int]]:
    return [list(one) for one in sets]


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
