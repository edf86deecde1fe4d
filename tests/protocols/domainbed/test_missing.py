"""What a cell lacks, with a plan and without."""

from itertools import combinations

import pytest

from fishr.protocols.domainbed.missing import jobs_of
from fishr.protocols.domainbed.records import JobKey


def sweep(pairs=True, dataset="PACS", algorithms=("ERM", "Fishr"), envs=3):
    tested = [(test,) for test in range(envs)] + (list(combinations(range(envs), 2)) if pairs else [])
    return [
        JobKey(dataset, algorithm, test, draw, trial)
        for algorithm in algorithms
        for test in tested
        for draw in range(2)
        for trial in range(2)
    ]


def told(keys):
    return [(key.test_envs, key.hparams_seed, key.trial_seed) for key in keys]


def needs(key, test, selection):
    if selection == "leave-one-out":
        return key.test_envs == (test,) or (len(key.test_envs) == 2 and test in key.test_envs)
    return key.test_envs == (test,)


@pytest.mark.parametrize("selection", ["training", "leave-one-out", "oracle"])
def test_a_plan_says_what_is_missing(selection):
    planned = sweep()
    present = [key for index, key in enumerate(planned) if index % 3]
    jobs = jobs_of("PACS", 3, present, planned)
    for algorithm in ("ERM", "Fishr"):
        for test in range(3):
            wanted = {key for key in planned if key.algorithm == algorithm and needs(key, test, selection)}
            assert jobs.missing(algorithm, test, selection) == tuple(sorted(wanted - set(present)))


def test_a_plan_may_be_of_a_single_cell():
    plan = [JobKey("PACS", "ERM", (1,), draw, 0) for draw in range(3)]
    jobs = jobs_of("PACS", 4, plan[:1], plan)
    assert told(jobs.missing("ERM", 1, "oracle")) == [((1,), 1, 0), ((1,), 2, 0)]
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
    assert told(jobs.missing("ERM", 0, "training")) == [((0,), 0, 1), ((0,), 1, 1)]
    assert told(jobs.missing("Fishr", 1, "training")) == [((1,), 0, 0), ((1,), 1, 0), ((1,), 1, 1)]
    assert len(jobs.missing("Fishr", 0, "training")) == 4


def test_leave_one_out_wants_pairs_where_there_is_any():
    alone = sweep(pairs=False)
    assert not jobs_of("PACS", 3, alone).pairs
    assert jobs_of("PACS", 3, alone).missing("ERM", 0, "leave-one-out") == ()
    pair = JobKey("PACS", "ERM", (0, 1), 0, 0)
    for jobs in (jobs_of("PACS", 3, [*alone, pair]), jobs_of("PACS", 3, alone, [*alone, pair])):
        assert jobs.pairs
        assert ((0, 2), 0, 0) in told(jobs.missing("ERM", 0, "leave-one-out"))
    assert not jobs_of("PACS", 3, alone, [*alone, JobKey("VLCS", "ERM", (0, 1), 0, 0)]).pairs
    # Three test environments serve no selection.
    assert not jobs_of("PACS", 3, [*alone, JobKey("PACS", "ERM", (0, 1, 2), 0, 0)]).pairs
