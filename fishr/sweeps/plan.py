"""The plan of a sweep: data sets × methods × test environments × hyper-parameter draws × trials; and its parts."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal, get_args

from attrs import field, frozen

from fishr.checks import one_of, whole
from fishr.data.caches.provenance import by_dotted_name
from fishr.errors import InputError
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings

TestSets = Literal["single", "single_and_pairs"]
Keep = Literal["results", "weights"]
# All of DomainBed's data sets, algorithms and pairs of test environments are a quarter of this.
MOST_JOBS = 1_000_000


@frozen
class Plan:
    """Everything that decides a sweep; a TOML file has these fields."""

    datasets: tuple[str, ...]  # DomainBed's names, or names of ``settings.own``
    algorithms: tuple[str, ...]  # DomainBed's names, or names of ``settings.methods``
    # each environment in turn, with all pairs for leave-one-domain-out selection, or sets of ascending indices
    test_envs: TestSets | tuple[tuple[int, ...], ...] = "single"
    draws: int = field(default=20, validator=whole(1))  # draws of hyper-parameters; draw 0 is the defaults
    trials: int = field(default=3, validator=whole(1))  # splits of each data set, each with its own seed
    threads: int = field(default=1, validator=whole(1))  # threads of each job; the last bits of a result depend on it
    # what a finished job keeps; "weights" keeps metrics and checkpoints too
    keep: Keep = field(default="results", validator=one_of(*get_args(Keep)))
    # whether jobs on features that differ in seeds and numbers alone are trained in one program, which is faster and
    # differs from training each alone by rounding (10⁻⁶)
    together: bool = True
    settings: Settings = field(factory=Settings)  # what all jobs share

    def __attrs_post_init__(self) -> None:
        for name, listed in (("datasets", self.datasets), ("algorithms", self.algorithms)):
            if not listed or len(set(listed)) < len(listed):
                raise InputError(f"{name}: got {list(listed)}, expected one or more names, each once")
        _check_test_sets(self.test_envs)
        count = self.draws * self.trials * len(self.algorithms) * sum(len(self.test_sets(d)) for d in self.datasets)
        if count > MOST_JOBS:
            raise InputError(
                f"plan: got {count:,} jobs ({self.draws:,} draws, {self.trials:,} trials), "
                f"expected at most {MOST_JOBS:,}; take fewer draws or trials, or split the plan"
            )
        for dataset in self.datasets:
            for algorithm in self.algorithms:
                for envs in self.test_sets(dataset):
                    # Refuses a method that does not go with the settings.
                    _ = Job(dataset, algorithm, envs, hparams_seed=0, trial_seed=0, settings=self.settings).changes

    def test_sets(self, dataset: str) -> tuple[tuple[int, ...], ...]:
        """Return the sets of test environments of a data set, in order."""
        if not isinstance(self.test_envs, str):
            return self.test_envs
        benchmark = self.settings.benchmark(dataset)
        tested = range(len(benchmark.environments)) if benchmark.tested is None else benchmark.tested
        pairs = combinations(range(len(benchmark.environments)), 2) if self.test_envs == "single_and_pairs" else ()
        return (*((index,) for index in tested), *(pair for pair in pairs if not set(pair).isdisjoint(tested)))

    def jobs(self) -> tuple[Job, ...]:
        """Return every job in starting order: by data set, method, trial, test environments and draw."""
        return tuple(
            Job(dataset, algorithm, envs, draw, trial, self.settings)
            for dataset in self.datasets
            for algorithm in self.algorithms
            for trial in range(self.trials)
            for envs in self.test_sets(dataset)
            for draw in range(self.draws)
        )


def _check_test_sets(sets: object) -> None:
    if isinstance(sets, str) and sets not in get_args(TestSets):
        raise InputError(f"test_envs: got {sets!r}, expected 'single', 'single_and_pairs' or sets of indices")
    listed = [list(one) for one in sets] if isinstance(sets, tuple) else [[0]]
    if not listed or len(set(map(tuple, listed))) < len(listed):
        raise InputError(f"test_envs: got {listed}, expected one or more sets, each once")
    for one in listed:
        if not one or one != sorted(one):
            raise InputError(f"test_envs: got {one}, expected one or more indices in ascending order")


def first_difference(kept: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """Return the first difference between the tables of a folder's plan and a given one, for people."""
    one, other = by_dotted_name(kept), by_dotted_name(given)
    for key in one | other:
        if one.get(key) != other.get(key):
            has, wants = (repr(table[key]) if key in table else "the default" for table in (one, other))
            return f"{key}: the folder has {has}, the plan given has {wants}"
    return None


@frozen
class Part:
    """Every ``of``-th job of a sweep from job ``index`` on, so that several machines can work in one folder."""

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def share(self, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
        return jobs[self.index :: self.of]


def parse_part(text: str) -> Part:
    """Return the part that a text such as 0/8 names."""
    index, slash, of = text.partition("/")
    if not (slash and index.isdecimal() and of.isdecimal() and int(index) < int(of)):
        raise InputError(f"part: got {text!r}, expected I/N with I from 0 to N − 1, such as 0/8")
    return Part(int(index), int(of))
