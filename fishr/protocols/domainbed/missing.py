"""The jobs that a cell of a table lacks."""

from collections.abc import Collection, Mapping
from itertools import product

from attrs import frozen

from fishr.protocols.domainbed.order import by_reference
from fishr.protocols.domainbed.records import JobKey

Seeds = frozenset[tuple[int, int]]


@frozen
class Jobs:
    """The jobs of one data set: what there is, and what every cell of its tables should have.

    Args:
        dataset: its name.
        environments: how many it has.
        present: jobs with records.
        wanted: by algorithm and test environment, the pairs (hparams_seed, trial_seed).
        pairs: whether any job has two test environments, as leave-one-domain-out needs them.
    """

    dataset: str
    environments: int
    present: frozenset[JobKey]
    wanted: Mapping[tuple[str, int], Seeds]
    pairs: bool

    @property
    def algorithms(self) -> list[str]:
        """That are there or wanted, in the order of rows."""
        names = {key.algorithm for key in self.present} | {algorithm for algorithm, _ in self.wanted}
        return sorted(names, key=by_reference)

    def missing(self, algorithm: str, test_env: int, selection: str) -> tuple[JobKey, ...]:
        """The jobs without records that a cell needs.

        Leave-one-domain-out needs each draw's runs of two test environments too, as soon as there is any such run.

        Args:
            algorithm: of the row.
            test_env: of the column.
            selection: one of ``SELECTIONS``.

        Returns:
            Their keys in ascending order.
        """
        tested = [(test_env,)]
        if selection == "leave-one-out" and self.pairs:
            tested += [(test_env, other) for other in range(self.environments) if other != test_env]
        needed = (
            JobKey(self.dataset, algorithm, envs, hparams_seed, trial_seed)
            for hparams_seed, trial_seed in self.wanted.get((algorithm, test_env), Seeds())
            for envs in tested
        )
        return tuple(sorted(key for key in needed if key not in self.present))


def jobs_of(
    dataset: str, environments: int, present: Collection[JobKey], planned: Collection[JobKey] | None = None
) -> Jobs:
    """What a data set's cells have and should have.

    Args:
        dataset: its name.
        environments: how many it has.
        present: jobs with records; those of other data sets do not count.
        planned: jobs of the sweep; None without a plan: then every cell should have all draws and all trials that any
            job of the data set has.

    Returns:
        Its jobs.

    Example:
        >>> present = [JobKey("PACS", "ERM", (0,), draw, 0) for draw in (0, 1)]
        >>> [str(key) for key in jobs_of("PACS", 4, present).missing("ERM", 3, "training")]
        ['PACS ERM test 3 draw 0 trial 0', 'PACS ERM test 3 draw 1 trial 0']
        >>> jobs_of("PACS", 4, present, planned=present).missing("ERM", 3, "training")
        ()
    """
    there = frozenset(key for key in present if key.dataset == dataset)
    plan = there if planned is None else frozenset(key for key in planned if key.dataset == dataset)
    wanted = dict[tuple[str, int], set[tuple[int, int]]]()
    if planned is None:
        draws, trials = {key.hparams_seed for key in there}, {key.trial_seed for key in there}
        for algorithm, test_env in product({key.algorithm for key in there}, range(environments)):
            wanted[algorithm, test_env] = set(product(draws, trials))
    for key in plan:
        if len(key.test_envs) == 1:
            wanted.setdefault((key.algorithm, key.test_envs[0]), set()).add((key.hparams_seed, key.trial_seed))
    return Jobs(
        dataset,
        environments,
        there,
        {cell: Seeds(seeds) for cell, seeds in wanted.items()},
        pairs=any(len(key.test_envs) == 2 for key in there | plan),
    )
