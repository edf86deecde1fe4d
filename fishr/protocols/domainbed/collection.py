"""The tables of a sweep's records: dataset tables, averages, and the jobs that cells lack."""

from collections.abc import Collection, Mapping, Sequence
from itertools import product

import numpy as np
from attrs import frozen

from fishr.protocols.domainbed.datasets import BENCHMARKS
from fishr.protocols.domainbed.records import JobKey, Records
from fishr.protocols.domainbed.selection import SELECTIONS, Chosen, Group, grouped
from fishr.protocols.domainbed.tables import AVERAGES, Cell, Row, Table, by_benchmark, by_reference, cell_of, row_of

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


def dataset_tables(
    read: Records,
    selection: str,
    planned: Collection[JobKey] | None = None,
    environments: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Table, ...]:
    """A table for each data set: test accuracy by algorithm and test environment.

    Args:
        read: the records of a sweep.
        selection: one of ``SELECTIONS``.
        planned: the sweep's jobs, which say what a cell lacks; None: what the records suggest.
        environments: names by data set, where they are neither the benchmark's nor in the records' settings; without
            any they are "0", "1", ….

    Returns:
        Tables in the benchmark's order, then by name.

    Example:
        >>> from fishr.protocols.domainbed.records import Record
        >>> def record(test):
        ...     accuracies = {f"env{i}_{split}": 0.5 + 0.1 * i for i in range(3) for split in ("in", "out")}
        ...     return Record(JobKey("ColoredMNIST", "ERM", (test,), 0, 0), 0, accuracies)
        >>> (table,) = dataset_tables(Records(tuple(map(record, range(3)))), "training")
        >>> table.columns, [round(cell.mean, 6) for cell in table.rows[0].cells], round(table.rows[0].average, 6)
        (('+90%', '+80%', '-90%'), [50.0, 60.0, 70.0], 60.0)

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """
    select = SELECTIONS[selection]
    found = {group: select(records, group.test_env) for group, records in grouped(read.records).items()}
    chosen = {group: one for group, one in found.items() if one is not None}
    sizes, keys = _sizes(read, planned or ()), read.keys
    tables = list[Table]()
    for dataset in sorted(sizes, key=by_benchmark):
        jobs = jobs_of(dataset, sizes[dataset], keys, planned)
        columns = _columns(jobs, {**read.environment_names, **(environments or {})})
        rows = tuple(
            _dataset_row(jobs, algorithm, list(columns), selection, chosen, read.protocol)
            for algorithm in jobs.algorithms
        )
        lacks_pairs = selection == "leave-one-out" and not jobs.pairs
        tables.append(Table(dataset, selection, tuple(columns.values()), rows, lacks_pairs))
    return tuple(tables)


def averages_table(tables: Sequence[Table]) -> Table:
    """The table of data sets: each trial's mean over the environments it has, then mean and error over trials.

    Args:
        tables: of ``dataset_tables``, one selection's.

    Returns:
        The table; its ``missing`` are those of all environments.

    Example:
        >>> def cell(accuracy, trials):
        ...     return cell_of([accuracy] * trials, chosen={t: Chosen(0.9, accuracy, 0, 0) for t in range(trials)})
        >>> table = Table("RotatedMNIST", "oracle", ("0", "15"), (row_of("ERM", [cell(0.5, 2), cell(0.75, 1)]),))
        >>> averages = averages_table([table])
        >>> averages.columns, averages.rows[0].cells[0].mean, averages.rows[0].cells[0].trials
        (('RotatedMNIST',), 56.25, 2)

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """
    rows = list[Row]()
    for algorithm in sorted({row.algorithm for table in tables for row in table.rows}, key=by_reference):
        found = [next((row for row in table.rows if row.algorithm == algorithm), None) for table in tables]
        protocol = next(row.protocol for row in found if row is not None)
        rows.append(row_of(algorithm, [_average(row) if row else Cell() for row in found], protocol))
    return Table(AVERAGES, tables[0].selection, tuple(table.name for table in tables), tuple(rows))


def _sizes(read: Records, planned: Collection[JobKey]) -> dict[str, int]:
    """How many environments each data set has: by its records, else by the benchmark, else by the plan."""
    sizes = dict[str, int]()
    for key in planned:
        known = BENCHMARKS.get(key.dataset)
        least = len(known.environments) if known else 1 + max(key.test_envs)
        sizes[key.dataset] = max(least, sizes.get(key.dataset, 0))
    return sizes | {record.key.dataset: record.environments for record in read.records}


def _columns(jobs: Jobs, environments: Mapping[str, Sequence[str]]) -> dict[int, str]:
    """The environments that are tested, by index."""
    known = BENCHMARKS.get(jobs.dataset)
    if known and jobs.dataset not in environments and len(known.environments) == jobs.environments:
        return {index: known.environments[index] for index in known.tested or range(jobs.environments)}
    names = environments.get(jobs.dataset, [str(index) for index in range(jobs.environments)])
    return dict(enumerate(names))


def _dataset_row(
    jobs: Jobs,
    algorithm: str,
    test_envs: Sequence[int],
    selection: str,
    chosen: Mapping[Group, Chosen],
    protocol: str,
) -> Row:
    cells = list[Cell]()
    for test_env in test_envs:
        trials = {
            group.trial_seed: one
            for group, one in chosen.items()
            if (group.dataset, group.algorithm, group.test_env) == (jobs.dataset, algorithm, test_env)
        }
        missing = jobs.missing(algorithm, test_env, selection)
        cells.append(cell_of([one.test for one in trials.values()], missing, trials))
    return row_of(algorithm, cells, protocol)


def _average(row: Row) -> Cell:
    cells = [cell for cell in row.cells if cell is not None]
    trials = sorted({trial for cell in cells for trial in cell.chosen})
    means = [float(np.mean([cell.chosen[trial].test for cell in cells if trial in cell.chosen])) for trial in trials]
    # Leave-one-domain-out names a job of two test environments in the cells of both.
    return cell_of(means, tuple(sorted({key for cell in cells for key in cell.missing})))
