import math
from itertools import combinations
from statistics import fmean, pstdev

import numpy as np
import pytest

from fishr.protocols.domainbed.collection import averages_table, dataset_tables, jobs_of, side_by_side
from fishr.protocols.domainbed.datasets import BENCHMARKS
from fishr.protocols.domainbed.records import JobKey, Record, Records
from fishr.protocols.domainbed.selection import SELECTIONS
from fishr.protocols.domainbed.tables import Cell, Table, cell_of, row_of


def planned_jobs(pairs=True, dataset="PACS", algorithms=("ERM", "Fishr"), envs=3):
    tested = [(test,) for test in range(envs)] + (list(combinations(range(envs), 2)) if pairs else [])
    return [
        JobKey(dataset, algorithm, test, draw, trial)
        for algorithm in algorithms
        for test in tested
        for draw in range(2)
        for trial in range(2)
    ]


def seeds_of(keys):
    return [(key.test_envs, key.hparams_seed, key.trial_seed) for key in keys]


def needs(key, test, selection):
    if selection == "leave-one-out":
        return key.test_envs == (test,) or (len(key.test_envs) == 2 and test in key.test_envs)
    return key.test_envs == (test,)


@pytest.mark.parametrize("selection", ["training", "leave-one-out", "oracle"])
def test_a_plan_says_what_is_missing(selection):
    planned = planned_jobs()
    present = [key for index, key in enumerate(planned) if index % 3]
    jobs = jobs_of("PACS", 3, present, planned)
    for algorithm in ("ERM", "Fishr"):
        for test in range(3):
            wanted = {key for key in planned if key.algorithm == algorithm and needs(key, test, selection)}
            assert jobs.missing(algorithm, test, selection) == tuple(sorted(wanted - set(present)))


def test_a_plan_may_be_of_a_single_cell():
    plan = [JobKey("PACS", "ERM", (1,), draw, 0) for draw in range(3)]
    jobs = jobs_of("PACS", 4, plan[:1], plan)
    assert seeds_of(jobs.missing("ERM", 1, "oracle")) == [((1,), 1, 0), ((1,), 2, 0)]
    assert jobs.missing("ERM", 0, "oracle") == ()
    assert jobs.missing("Fishr", 1, "oracle") == ()


def test_without_a_plan_every_cell_wants_what_any_job_has():
    present = [
        JobKey("PACS", "ERM", (0,), 0, 0),
        JobKey("PACS", "ERM", (0,), 1, 0),
        JobKey("PACS", "Fishr", (1,), 0, 1),
        JobKey("VLCS", "CORAL", (0,), 9, 9),
    ]
    jobs = jobs_of("PACS", 2, present)
    assert jobs.algorithms == ["ERM", "Fishr"]
    assert seeds_of(jobs.missing("ERM", 0, "training")) == [((0,), 0, 1), ((0,), 1, 1)]
    assert seeds_of(jobs.missing("Fishr", 1, "training")) == [((1,), 0, 0), ((1,), 1, 0), ((1,), 1, 1)]
    assert len(jobs.missing("Fishr", 0, "training")) == 4


def test_leave_one_out_wants_pairs_where_there_is_any():
    alone = planned_jobs(pairs=False)
    assert not jobs_of("PACS", 3, alone).pairs
    assert jobs_of("PACS", 3, alone).missing("ERM", 0, "leave-one-out") == ()
    pair = JobKey("PACS", "ERM", (0, 1), 0, 0)
    for jobs in (jobs_of("PACS", 3, [*alone, pair]), jobs_of("PACS", 3, alone, [*alone, pair])):
        assert jobs.pairs
        assert ((0, 2), 0, 0) in seeds_of(jobs.missing("ERM", 0, "leave-one-out"))
    assert not jobs_of("PACS", 3, alone, [*alone, JobKey("VLCS", "ERM", (0, 1), 0, 0)]).pairs
    # Three test environments serve no selection.
    assert not jobs_of("PACS", 3, [*alone, JobKey("PACS", "ERM", (0, 1, 2), 0, 0)]).pairs


def record(key, value, envs, step=0):
    return Record(key, step, {f"env{i}_{split}": value for i in range(envs) for split in ("in", "out")})


def sweep(dataset="ColoredMNIST", algorithms=("ERM",), envs=3, trials=2, draws=1, value=None, pairs=True):
    tested = [(t,) for t in range(envs)] + (list(combinations(range(envs), 2)) if pairs else [])
    keys = [
        JobKey(dataset, algorithm, test, draw, trial)
        for algorithm in algorithms
        for test in tested
        for draw in range(draws)
        for trial in range(trials)
    ]
    return [record(key, (value or accuracy)(key), envs) for key in keys]


def accuracy(key):
    """Another for every environment and trial."""
    return (1 + 3 * key.test_envs[0] + key.trial_seed + len(key.algorithm)) / 20


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_table_of_a_data_set(selection):
    (table,) = dataset_tables(Records(tuple(sweep(algorithms=("Fishr", "ERM")))), selection)
    assert (table.name, table.selection, table.columns) == ("ColoredMNIST", selection, ("+90%", "+80%", "-90%"))
    assert [row.label for row in table.rows] == ["ERM", "Fishr"]
    for row in table.rows:
        assert row.protocol == "upstream"
        for test, cell in enumerate(row.cells):
            values = [accuracy(JobKey("", row.algorithm, (test,), 0, trial)) for trial in (0, 1)]
            assert cell.mean == pytest.approx(100 * np.mean(values))
            assert cell.standard_error == pytest.approx(100 * np.std(values) / math.sqrt(2))
            assert (cell.trials, cell.missing) == (2, ())
            assert [cell.chosen[trial].test for trial in (0, 1)] == values
        assert row.average == pytest.approx(fmean(cell.mean for cell in row.cells))
    assert not table.lacks_pairs


def test_the_selection_chooses_what_a_cell_shows():
    """Draw 1 is better on the training environments, draw 0 on the test environment's own out split."""
    key = [JobKey("ColoredMNIST", "ERM", (0,), draw, 0) for draw in (0, 1)]
    names = ("env0_in", "env0_out", "env1_in", "env1_out", "env2_in", "env2_out")
    records = (
        Record(key[0], 0, dict(zip(names, (0.25, 0.9, 0, 0.1, 0, 0.1), strict=True))),
        Record(key[1], 0, dict(zip(names, (0.75, 0.1, 0, 0.9, 0, 0.9), strict=True))),
    )
    means = {s: dataset_tables(Records(records), s)[0].rows[0].cells[0].mean for s in SELECTIONS}
    assert means == {"training": 75.0, "oracle": 25.0, "leave-one-out": None}


def test_order_and_names():
    records = [
        *sweep("zoo", ("B", "ERM", "A"), envs=2),
        *sweep("apes", envs=2),
        *sweep("PACS", envs=4),
        *sweep("RotatedMNIST", envs=6),
        *sweep("VLCS", envs=3),
    ]
    names = {"own": {"apes": {"environments": ["gibbon", "gorilla"]}}}
    tables = dataset_tables(Records(tuple(records), settings=names), "training")
    assert [table.name for table in tables] == ["RotatedMNIST", "VLCS", "PACS", "apes", "zoo"]
    columns = {table.name: table.columns for table in tables}
    assert columns["PACS"] == BENCHMARKS["PACS"].environments
    assert columns["zoo"] == ("0", "1")
    assert columns["apes"] == ("gibbon", "gorilla")
    # A data set of the benchmark's name with other environments is not named after it.
    assert columns["VLCS"] == ("0", "1", "2")
    assert [row.algorithm for row in tables[-1].rows] == ["ERM", "A", "B"]


def test_names_that_the_settings_record():
    read = Records(tuple(sweep("zoo", envs=2)), settings={"own": {"zoo": {"environments": ["apes", "bears"]}}})
    assert dataset_tables(read, "oracle")[0].columns == ("apes", "bears")


def test_only_environments_that_the_benchmark_tests():
    records = tuple(sweep("SpawriousO2O_easy", envs=3, pairs=False))
    only = tuple(one for one in records if one.key.test_envs == (0,))
    (table,) = dataset_tables(Records(only), "training")
    assert table.columns == ("Test",)
    assert table.rows[0].average == table.rows[0].cells[0].mean
    assert table.rows[0].cells[0].missing == ()


def test_missing_jobs_reach_their_cells():
    planned = [one.key for one in sweep(draws=2)]
    records = tuple(one for one in sweep(draws=2) if one.key != JobKey("ColoredMNIST", "ERM", (1,), 1, 0))
    (table,) = dataset_tables(Records(records), "training", planned)
    assert [len(cell.missing) for cell in table.rows[0].cells] == [0, 1, 0]
    (table,) = dataset_tables(Records(records), "training")
    assert [len(cell.missing) for cell in table.rows[0].cells] == [0, 1, 0]
    assert [len(cell.missing) for cell in averages_table([table]).rows[0].cells] == [1]


def test_a_planned_data_set_without_records_has_a_table():
    planned = [*(one.key for one in sweep()), JobKey("PACS", "Fishr", (0,), 0, 0), JobKey("mine", "ERM", (2,), 0, 0)]
    _, pacs, mine = dataset_tables(Records(tuple(sweep())), "oracle", planned)
    assert (pacs.columns, [row.label for row in pacs.rows]) == (("A", "C", "P", "S"), ["Fishr"])
    assert [(cell.mean, len(cell.missing)) for cell in pacs.rows[0].cells] == [(None, 1), *[(None, 0)] * 3]
    assert mine.columns == ("0", "1", "2")


def test_leave_one_out_without_pairs_says_so():
    alone = Records(tuple(sweep(pairs=False)))
    assert [dataset_tables(alone, s)[0].lacks_pairs for s in SELECTIONS] == [False, True, False]
    (table,) = dataset_tables(alone, "leave-one-out")
    assert [cell.mean for cell in table.rows[0].cells] == [None] * 3


def test_averages_are_over_the_environments_a_trial_has():
    """Trial 1 lacks the last environment."""
    records = [one for one in sweep() if one.key.test_envs != (2,) or one.key.trial_seed == 0]
    pacs = sweep("PACS", ("ERM", "Fishr"), envs=4)
    tables = dataset_tables(Records((*records, *pacs)), "oracle")
    averages = averages_table(tables)
    assert (averages.columns, averages.selection) == (("ColoredMNIST", "PACS"), "oracle")

    def of(algorithm, tests, trial):
        return fmean(accuracy(JobKey("", algorithm, (test,), 0, trial)) for test in tests)

    erm, fishr = averages.rows
    for cell, values in (
        (erm.cells[0], [of("ERM", range(3), 0), of("ERM", range(2), 1)]),
        (erm.cells[1], [of("ERM", range(4), trial) for trial in (0, 1)]),
        (fishr.cells[1], [of("Fishr", range(4), trial) for trial in (0, 1)]),
    ):
        assert cell.mean == pytest.approx(100 * fmean(values))
        assert cell.standard_error == pytest.approx(100 * pstdev(values) / math.sqrt(2))
    assert erm.average == pytest.approx((erm.cells[0].mean + erm.cells[1].mean) / 2)
    assert (fishr.cells[0].mean, fishr.average) == (None, None)
    # Not the mean of the table's own means, which the lacking environment weighs otherwise.
    assert erm.cells[0].mean != pytest.approx(tables[0].rows[0].average, abs=0.1)


def small_table(name, selection, columns, rows, protocol="p"):
    made = [row_of(a, [cell_of([value]) for value in values], protocol) for a, values in rows.items()]
    return Table(name, selection, columns, tuple(made))


def test_rows_of_an_algorithm_stand_together_in_the_order_of_the_sweeps():
    old = small_table("PACS", "oracle", ("A", "C"), {"ERM": (0.1, 0.2), "Fishr": (0.3, 0.4)}, "upstream")
    new = small_table("PACS", "oracle", ("A", "C"), {"ERM": (0.5, 0.6), "CORAL": (0.7, 0.8)}, "domainbed-2021")
    (made,) = side_by_side({"zz": [old], "aa": [new]})
    assert [row.label for row in made.rows] == ["ERM (zz)", "ERM (aa)", "CORAL (aa)", "Fishr (zz)"]
    assert [row.protocol for row in made.rows] == ["upstream", "domainbed-2021", "domainbed-2021", "upstream"]
    assert [[cell.mean for cell in row.cells] for row in made.rows] == [[10, 20], [50, 60], [70, 80], [30, 40]]
    assert made.rows[0].average == old.rows[0].average


def test_columns_that_a_sweep_lacks_are_empty_and_leave_no_average():
    old = small_table("averages", "oracle", ("PACS",), {"ERM": (0.1,)})
    new = small_table("averages", "oracle", ("VLCS", "PACS"), {"ERM": (0.5, 0.25)})
    (made,) = side_by_side({"old": [old], "new": [new]})
    # As the benchmark orders them.
    assert made.columns == ("VLCS", "PACS")
    first, second = made.rows
    assert (first.cells[0], first.average, first.worst) == (Cell(), None, None)
    assert ([cell.mean for cell in second.cells], second.average) == ([50, 25], 37.5)


def test_tables_meet_by_selection_and_data_set():
    def tables(*names):
        return [small_table(name, one, ("A",), {"ERM": (0.5,)}) for one in ("training", "oracle") for name in names]

    found = side_by_side({"old": tables("PACS", "averages"), "new": tables("VLCS", "PACS", "averages")})
    listed = [(one.selection, one.name, len(one.rows)) for one in found]
    sizes = {"VLCS": 1, "PACS": 2, "averages": 2}
    assert listed == [(one, name, size) for one in ("training", "oracle") for name, size in sizes.items()]


def test_only_what_no_sweep_has_pairs_for_lacks_them():
    lacking, whole = (Table("PACS", "leave-one-out", ("A",), (), lacks_pairs=lacks) for lacks in (True, False))
    assert side_by_side({"a": [lacking], "b": [lacking]})[0].lacks_pairs
    assert not side_by_side({"a": [lacking], "b": [whole]})[0].lacks_pairs
