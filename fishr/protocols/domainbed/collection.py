"""Tables from the records of sweeps: dataset tables, averages, the jobs that cells lack, and sweeps side by side."""

from collections.abc import Collection, Mapping, Sequence
from itertools import product

import numpy as np
from attrs import evolve, frozen

from fishr.protocols.domainbed.datasets import BENCHMARKS
from fishr.protocols.domainbed.records import JobKey, Records
from fishr.protocols.domainbed.selection import SELECTIONS, by_place_and_trial
from fishr.protocols.domainbed.tables import AVERAGES, Cell, Row, Table, by_benchmark, by_reference, cell_of, row_of


def dataset_tables(read: Records, selection: str, planned: Collection[JobKey] | None = None) -> tuple[Table, ...]:
    """Return a table for each data set; ``planned`` jobs decide what a cell lacks, or else the records do."""
    select, records = SELECTIONS[selection], by_place_and_trial(read.records)

    def cell(jobs: Jobs, algorithm: str, test_env: int) -> Cell:
        trials = records.get((jobs.dataset, algorithm, test_env), {})
        chosen = {trial: one for trial in sorted(trials) if (one := select(trials[trial], test_env))}
        missing = jobs.missing(algorithm, test_env, selection)
        return cell_of([one.test for one in chosen.values()], missing, chosen)

    sizes, keys = _sizes(read, planned or ()), read.keys
    tables = list[Table]()
    for dataset in sorted(sizes, key=by_benchmark):
        jobs = jobs_of(dataset, sizes[dataset], keys, planned)
        columns = _columns(jobs, read.environment_names)
        rows = tuple(
            row_of(algorithm, [cell(jobs, algorithm, test_env) for test_env in columns], read.protocol)
            for algorithm in jobs.algorithms
        )
        lacks_pairs = selection == "leave-one-out" and not jobs.pairs
        tables.append(Table(dataset, selection, tuple(columns.values()), rows, lacks_pairs))
    return tuple(tables)


def averages_table(tables: Sequence[Table]) -> Table:
    """Return the table of data sets: each trial's mean over its environments, then mean and error over trials."""
    rows = list[Row]()
    for algorithm in sorted({row.algorithm for table in tables for row in table.rows}, key=by_reference):
        found = [next((row for row in table.rows if row.algorithm == algorithm), None) for table in tables]
        protocol = next(row.protocol for row in found if row is not None)
        rows.append(row_of(algorithm, [_average(row) if row else Cell() for row in found], protocol))
    return Table(AVERAGES, tables[0].selection, tuple(table.name for table in tables), tuple(rows))


def side_by_side(named: Mapping[str, Sequence[Table]]) -> tuple[Table, ...]:
    """Return the tables of several sweeps as one for each selection and data set; rows bear the sweep's name."""
    matching = dict[tuple[str, str], list[tuple[str, Table]]]()
    for source, tables in named.items():
        for table in tables:
            matching.setdefault((table.selection, table.name), []).append((source, table))
    merged = list[Table]()
    order = list(SELECTIONS)
    for selection, name in sorted(matching, key=lambda one: (order.index(one[0]), by_benchmark(one[1]))):
        parts = matching[selection, name]
        columns = tuple(dict.fromkeys(column for _, table in parts for column in table.columns))
        if name == AVERAGES:
            columns = tuple(sorted(columns, key=by_benchmark))
        rows = [_aligned(row, table.columns, columns, source) for source, table in parts for row in table.rows]
        # A stable sort: the rows of a method stay in the order of the sweeps.
        rows.sort(key=lambda row: by_reference(row.algorithm))
        lacks_pairs = all(table.lacks_pairs for _, table in parts)
        merged.append(Table(name, selection, columns, tuple(rows), lacks_pairs))
    return tuple(merged)


@frozen
class Jobs:
    """Jobs of one data set: those with records, and those that every cell of its tables should have."""

    dataset: str
    environments: int
    present: frozenset[JobKey]
    wanted: Mapping[tuple[str, int], set[tuple[int, int]]]  # (hparams_seed, trial_seed) by method and test environment
    pairs: bool  # whether any job has two test environments

    @property
    def algorithms(self) -> list[str]:
        """Names of the methods that are present or wanted, in the order of rows."""
        names = {key.algorithm for key in self.present} | {algorithm for algorithm, _ in self.wanted}
        return sorted(names, key=by_reference)

    def missing(self, algorithm: str, test_env: int, selection: str) -> tuple[JobKey, ...]:
        """Return the jobs without records that a cell needs, in ascending order."""
        tested = [(test_env,)]
        if selection == "leave-one-out" and self.pairs:
            tested += [(test_env, other) for other in range(self.environments) if other != test_env]
        needed = (
            JobKey(self.dataset, algorithm, envs, hparams_seed, trial_seed)
            for hparams_seed, trial_seed in self.wanted.get((algorithm, test_env), ())
            for envs in tested
        )
        return tuple(sorted(key for key in needed if key not in self.present))


def jobs_of(
    dataset: str, environments: int, present: Collection[JobKey], planned: Collection[JobKey] | None = None
) -> Jobs:
    """Return a data set's jobs; without a plan, every cell wants all draws and trials that any job has."""
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
    return Jobs(dataset, environments, there, wanted, pairs=any(len(key.test_envs) == 2 for key in there | plan))


def _sizes(read: Records, planned: Collection[JobKey]) -> dict[str, int]:
    """Return the number of environments of each data set: by its records, else by the benchmark, else by the plan."""
    sizes = dict[str, int]()
    for key in planned:
        known = BENCHMARKS.get(key.dataset)
        least = len(known.environments) if known else 1 + max(key.test_envs)
        sizes[key.dataset] = max(least, sizes.get(key.dataset, 0))
    return sizes | {record.key.dataset: record.environments for record in read.records}


def _columns(jobs: Jobs, environments: Mapping[str, Sequence[str]]) -> dict[int, str]:
    """Return the names of the tested environments by index."""
    known = BENCHMARKS.get(jobs.dataset)
    if known and jobs.dataset not in environments and len(known.environments) == jobs.environments:
        return {index: known.environments[index] for index in known.tested or range(jobs.environments)}
    names = environments.get(jobs.dataset, [str(index) for index in range(jobs.environments)])
    return dict(enumerate(names))


def _average(row: Row) -> Cell:
    cells = [cell for cell in row.cells if cell is not None]
    trials = sorted({trial for cell in cells for trial in cell.chosen})
    means = [float(np.mean([cell.chosen[trial].test for cell in cells if trial in cell.chosen])) for trial in trials]
    # Leave-one-domain-out names a job of two test environments in the cells of both.
    return cell_of(means, tuple(sorted({key for cell in cells for key in cell.missing})))


def _aligned(row: Row, columns: Sequence[str], wanted: Sequence[str], source: str) -> Row:
    cells = dict(zip(columns, row.cells, strict=True))
    return evolve(
        row_of(row.algorithm, [cells.get(column) or Cell() for column in wanted], row.protocol), source=source
    )
