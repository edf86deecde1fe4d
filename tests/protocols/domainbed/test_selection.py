"""The three selections against what their description says, written out the long way."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fishr.protocols.domainbed.records import JobKey, Record
from fishr.protocols.domainbed.selection import (
    SELECTIONS,
    TITLES,
    by_place_and_trial,
    leave_one_domain_out,
    oracle,
    training_domain_validation,
)

# Few values, so that ties and NaN are common; thirds and tenths, so that the order of sums matters.
ACCURACY = st.sampled_from([0.0, 0.1, 0.2, 0.3, 1 / 3, 0.6, 0.7, 1.0, math.nan])
ENVIRONMENTS = 3


def record(envs, draw, step, accuracies, environments=ENVIRONMENTS):
    names = [f"env{i}_{split}" for i in range(environments) for split in ("in", "out")]
    return Record(JobKey("PACS", "ERM", envs, draw, 0), step, dict(zip(names, accuracies, strict=True)))


@st.composite
def groups(draw):
    """Records of a group with test environment 1: some runs lacking, some steps lacking, runs in any order."""
    runs = []
    for seed in draw(st.permutations(range(3))):
        for envs in draw(st.permutations([(1,), (0, 1), (1, 2), (0, 1, 2)])):
            steps = draw(st.lists(st.sampled_from([0, 300, 600]), unique=True, max_size=3))
            size = 2 * ENVIRONMENTS
            runs.append([record(envs, seed, s, draw(st.tuples(*[ACCURACY] * size))) for s in sorted(steps)])
    return [one for run in draw(st.permutations(runs)) for one in run]


def slow_training(records, test):
    best = None
    for seed in range(10):
        mine = None
        for step in range(0, 1000, 100):
            for one in records:
                if one.key.test_envs == (test,) and one.key.hparams_seed == seed and one.step == step:
                    others = [one.accuracies[f"env{i}_out"] for i in range(ENVIRONMENTS) if i != test]
                    mine = better(mine, (np.mean(others), one.accuracies[f"env{test}_in"], seed, step), tie=False)
        best = better(best, mine, tie=True)
    return best


def slow_oracle(records, test):
    best = None
    for seed in range(10):
        run = {one.step: one for one in records if one.key.test_envs == (test,) and one.key.hparams_seed == seed}
        if run:
            last = run[max(run)].accuracies
            best = better(best, (last[f"env{test}_out"], last[f"env{test}_in"], seed, max(run)), tie=True)
    return best


def slow_leave_one_out(records, test):
    best = None
    for seed in range(10):
        mine = None
        for step in range(0, 1000, 100):
            at = {r.key.test_envs: r for r in records if (r.key.hparams_seed, r.step) == (seed, step)}
            needed = [(0, 1), (1, 2)]
            assert test == 1
            if (1,) in at and all(envs in at for envs in needed):
                left_out = [at[0, 1].accuracies["env0_in"], at[1, 2].accuracies["env2_in"]]
                tested = at[1,].accuracies["env1_in"]
                mine = better(mine, (np.sum(left_out) / 2, tested, seed, step), tie=False)
        best = better(best, mine, tie=True)
    return best


def better(old, new, tie):
    """The better of two, either of which may be lacking or NaN; among equal ones the new one wins if ``tie``."""
    if old is None or new is None:
        return new if old is None else old
    one, other = (-1.0 if math.isnan(value[0]) else value[0] for value in (old, new))
    return new if other > one or (tie and other == one) else old


def same(chosen, slow):
    if slow is None:
        assert chosen is None
        return
    assert (chosen.hparams_seed, chosen.step) == slow[2:]
    # Bits, not nearness; NaN is NaN.
    np.testing.assert_array_equal([chosen.validation, chosen.test], slow[:2])


@pytest.mark.slow
@given(groups())
@example([])
def test_the_selections_are_what_they_are_described_as(records):
    same(training_domain_validation(records, 1), slow_training(records, 1))
    same(oracle(records, 1), slow_oracle(records, 1))
    same(leave_one_domain_out(records, 1), slow_leave_one_out(records, 1))


def test_means_are_numpys_to_the_bit():
    """Its sum of eight or more is pairwise: Python's sums of nine environments differ from it in the last bit."""
    values = np.random.RandomState(14).rand(20)
    alone = record((1,), 0, 0, values, environments=10)
    pairs = [record((min(1, v), max(1, v)), 0, 0, values, environments=10) for v in range(10) if v != 1]
    outs, ins = ([v for i, v in enumerate(values[split::2].tolist()) if i != 1] for split in (1, 0))
    assert training_domain_validation([alone], 1).validation == np.mean(outs) != math.fsum(outs) / 9
    assert leave_one_domain_out([alone, *pairs], 1).validation == np.sum(ins) / 9 != math.fsum(ins) / 9


def test_names():
    assert SELECTIONS["training"] is training_domain_validation
    assert SELECTIONS["leave-one-out"] is leave_one_domain_out
    assert SELECTIONS["oracle"] is oracle
    assert list(TITLES) == list(SELECTIONS)


def flat(draw, value, step=0, envs=(1,)):
    return record(envs, draw, step, [value] * 6)


@pytest.mark.parametrize("select", [training_domain_validation, oracle])
@pytest.mark.parametrize("order", [1, -1])
def test_of_equal_draws_the_highest_is_chosen(select, order):
    records = [flat(draw, 0.5) for draw in (0, 7, 3)][::order]
    assert select(records, 1).hparams_seed == 7


def test_nan_loses_whatever_comes_first():
    """Within a draw and between draws."""
    assert training_domain_validation([flat(0, math.nan), flat(0, 0.0, 300)], 1).step == 300
    assert training_domain_validation([flat(0, 0.0), flat(5, math.nan)], 1).hparams_seed == 0
    assert math.isnan(training_domain_validation([flat(2, math.nan)], 1).validation)


def test_the_oracle_sees_only_the_last_step():
    assert oracle([flat(0, 0.9, 300), flat(0, 0.1, 600), flat(0, 0.8, 0)], 1).step == 600


def test_a_run_that_was_begun_again_in_its_file():
    """DomainBed appends: the oracle takes what was written last, leave-one-domain-out passes over such steps."""
    twice = [flat(0, 0.9), flat(0, 0.5, 300), flat(0, 0.2, 300)]
    assert oracle(twice, 1).test == 0.2
    assert training_domain_validation([flat(0, 0.1), flat(0, 0.5), flat(0, 0.5, 300)], 1).step == 0
    # Step 300 would be better.
    pairs = [flat(0, value, step, envs) for envs in ((0, 1), (1, 2)) for step, value in ((0, 0.3), (300, 0.4))]
    chosen = leave_one_domain_out([*twice, *pairs], 1)
    assert (chosen.step, chosen.test) == (0, 0.9)


def test_leave_one_out_takes_the_earliest_of_equal_steps_in_whatever_order_they_come():
    records = [flat(0, 0.5, step, envs) for envs in ((1,), (0, 1), (1, 2)) for step in (300, 600, 0)]
    assert leave_one_domain_out(records, 1).step == 0


def test_leave_one_out_needs_the_same_draw_and_step():
    needed = [flat(0, 0.5), flat(0, 0.5, 0, (0, 1))]
    assert leave_one_domain_out([*needed, flat(0, 0.5, 0, (1, 2))], 1) is not None
    assert leave_one_domain_out([*needed, flat(1, 0.5, 0, (1, 2))], 1) is None
    assert leave_one_domain_out([*needed, flat(0, 0.5, 300, (1, 2))], 1) is None
    # A pair that has nothing to do with the test environment takes no one's place.
    assert leave_one_domain_out([*needed, flat(0, 0.5, 0, (0, 2))], 1) is None


def test_leave_one_out_reads_the_environment_that_was_left_out():
    """In split of v, of the run with v; in split of the test environment, of the run with it alone."""
    records = [
        record((1,), 0, 0, [0.0, 0.0, 0.9, 0.0, 0.0, 0.0]),
        record((0, 1), 0, 0, [0.25, 0.0, 0.1, 0.0, 0.0, 0.0]),
        record((1, 2), 0, 0, [0.0, 0.0, 0.1, 0.0, 0.75, 0.0]),
    ]
    chosen = leave_one_domain_out(records, 1)
    assert (chosen.validation, chosen.test) == (0.5, 0.9)


def test_a_record_of_several_test_environments_joins_those_of_each():
    records = [flat(0, 0.5, 0, envs) for envs in ((1,), (0, 1), (2, 0))]
    found = by_place_and_trial(records)
    joined = {
        place: {trial: [one.key.test_envs for one in trials[trial]] for trial in trials}
        for place, trials in found.items()
    }
    assert joined == {
        ("PACS", "ERM", 0): {0: [(0, 1), (0, 2)]},
        ("PACS", "ERM", 1): {0: [(1,), (0, 1)]},
        ("PACS", "ERM", 2): {0: [(0, 2)]},
    }
