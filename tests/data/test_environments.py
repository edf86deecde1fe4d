"""Test environments and DomainBed's splits: names, samples, refusals; what is tested is never augmented."""

import numpy as np
import pytest
import torch
from attrs import evolve, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from fishr.data.domains import Domain
from fishr.data.environments import (
    AllEnvironments,
    Environments,
    HeldOut,
    check_test_environments,
    seed_hash,
    split_groups,
    split_indices,
)
from fishr.errors import InputError

SIZES = (10, 15, 20)


@frozen
class Source:
    """Three environments whose inputs are (environment, row) and, with ``seeded``, the seed."""

    seeded: bool = False

    def __call__(self, seed, data_dir):
        domains = []
        for index, size in enumerate(SIZES):
            rows = torch.stack([torch.full((size,), float(index)), torch.arange(float(size))], 1)
            if self.seeded:
                rows = torch.cat([rows, torch.full((size, 1), float(seed))], 1)
            domains.append(Domain(f"e{index}", rows, torch.arange(size) % 2))
        return Environments(tuple(domains), classes=2)


@pytest.mark.parametrize("test", [(2,), (0, 2), (1, 0)])
def test_domains_are_domainbeds(test):
    made = HeldOut(Source(), test=test, trial_seed=7)(seed=0, data_dir=None)
    trained = [index for index in range(3) if index not in test]
    assert [d.name for d in made.training] == [f"env{i}_in" for i in trained]
    assert [d.name for d in made.evaluation] == [f"env{i}_in" for i in test] + [f"env{i}_out" for i in range(3)]
    assert made.training[0].title == f"env{trained[0]}_in (e{trained[0]})"
    found = {d.name: d for d in (*made.training, *made.evaluation)}
    for index, size in enumerate(SIZES):
        kept, held_out = split_indices(size, 0.2, seed_hash(7, index))
        for name, rows in (("in", kept), ("out", held_out)):
            part = found[f"env{index}_{name}"]
            assert part.inputs.tolist() == [[float(index), float(row)] for row in rows]
            assert part.labels.tolist() == [row % 2 for row in rows]


def test_data_depend_on_the_runs_seed_or_on_one_of_their_own():
    for held, seed in ((HeldOut(Source(True), (0,)), 5), (HeldOut(Source(True), (0,), data_seed=3), 3)):
        assert held(5, None).training[0].inputs[0, 2] == seed


@frozen(eq=False)
class Marked:
    """Lazy inputs that tell whether they were made plain."""

    count: int
    is_plain: bool = False
    shape: torch.Size = field(init=False)
    dtype: torch.dtype = torch.float32

    def __attrs_post_init__(self):
        object.__setattr__(self, "shape", torch.Size((self.count, 1)))

    def __len__(self):
        return self.count

    def select(self, rows):
        return evolve(self, count=len(rows))

    def plain(self):
        return evolve(self, is_plain=True)

    def read(self, rows, seeds=None):
        return torch.zeros(len(rows), 1)


def test_what_is_tested_is_plain():
    def source(seed, data_dir):
        labels = torch.arange(10) % 2
        return Environments(tuple(Domain(f"e{i}", Marked(10), labels) for i in range(3)), 2)

    made = HeldOut(source, test=(1,))(0, None)
    plain = {d.name: d.inputs.is_plain for d in (*made.training, *made.evaluation)}
    assert plain == {
        "env0_in": False,
        "env2_in": False,
        "env1_in": True,
        "env0_out": False,
        "env1_out": True,
        "env2_out": False,
    }


def test_all_environments_are_whole_and_under_their_names():
    made = AllEnvironments(Source())(0, None)
    assert [(d.name, len(d.labels)) for d in made.training] == [("e0", 10), ("e1", 15), ("e2", 20)]
    assert made.evaluation == ()


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ((0, 0), "test: got \\(0, 0\\), expected each environment once"),
        ((-1,), "test environment: got -1, expected one of 0 or more"),
    ],
)
def test_refused_at_once(test, message):
    with pytest.raises(InputError, match=message):
        HeldOut(Source(), test=test)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5])
def test_fractions_that_split_nothing_are_refused(fraction):
    with pytest.raises(InputError, match="holdout_fraction: got"):
        HeldOut(Source(), test=(0,), holdout_fraction=fraction)


def test_refused_with_the_data():
    with pytest.raises(InputError, match=r"test environment: got 3, expected one of 0 \(e0\), 1 \(e1\), 2 \(e2\)"):
        HeldOut(Source(), test=(3,))(0, None)
    with pytest.raises(InputError, match="leaves none of 3 environments to train on"):
        HeldOut(Source(), test=(0, 1, 2))(0, None)
    with pytest.raises(InputError, match=r"environment 0 \(e0\): holdout_fraction: got 0.05 of 10 samples"):
        HeldOut(Source(), test=(1,), holdout_fraction=0.05)(0, None)


def test_no_test_environment_is_fine():
    check_test_environments((), ("a", "b"))
    assert len(HeldOut(Source(), test=())(0, None).training) == 3


# Printed by facebookresearch/DomainBed at b93c22a: misc.seed_hash.
SEEDS = {
    (0, 0): 894182419,
    (0, 1): 1514274641,
    (0, 2): 1325548499,
    (1, 0): 785910682,
    (2, 0): 472130416,
    (2, 2): 248334461,
}
# The same: the order in which misc.split_dataset shuffles ten rows.
ORDERS = {
    (0, 0): [2, 3, 8, 1, 4, 5, 0, 9, 6, 7],
    (0, 1): [5, 0, 3, 7, 8, 6, 1, 2, 9, 4],
    (0, 2): [3, 9, 1, 7, 6, 8, 4, 5, 2, 0],
}


@pytest.mark.parametrize("arguments", SEEDS)
def test_seeds_are_domainbeds(arguments):
    assert seed_hash(*arguments) == SEEDS[arguments]


def test_a_numpy_number_gives_another_seed():
    assert seed_hash(np.int64(0), 0) != seed_hash(0, 0)


@pytest.mark.parametrize("arguments", ORDERS)
def test_splits_are_domainbeds(arguments):
    kept, held_out = split_indices(10, 0.2, seed_hash(*arguments))
    assert held_out + kept == ORDERS[arguments]
    assert len(held_out) == 2


@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 2**31 - 1))
def test_every_row_is_in_one_of_the_two(count, fraction, seed):
    if not 0 < int(count * fraction) < count:
        with pytest.raises(InputError, match="expected at least one of each"):
            split_indices(count, fraction, seed)
        return
    kept, held_out = split_indices(count, fraction, seed)
    assert sorted(kept + held_out) == list(range(count))
    assert len(held_out) == int(count * fraction)


@given(
    groups=st.lists(st.integers(-3, 8), min_size=2, max_size=40).filter(lambda found: len(set(found)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_group_is_on_one_side_of_the_split(groups, fraction, seed):
    kept, out = split_groups(torch.tensor(groups), fraction, seed)
    assert sorted([*kept, *out]) == list(range(len(groups)))
    assert not {groups[row] for row in kept} & {groups[row] for row in out}
    assert kept
    held = {groups[row] for row in out}
    assert held
    assert len(out) <= fraction * len(groups) or len(held) == 1
    assert (kept, out) == split_groups(torch.tensor(groups), fraction, seed)


def test_every_group_is_held_out_by_some_trial():
    groups = torch.arange(40) // 4
    held = [split_groups(groups, 0.2, seed)[1] for seed in range(40)]
    assert {len(out) for out in held} == {8}
    assert {int(groups[row]) for out in held for row in out} == set(range(10))


@frozen
class Patients:
    """The environments of ``Source``, in which five samples in a row are of one patient."""

    def __call__(self, seed, data_dir):
        found = Source()(seed, data_dir)
        domains = [evolve(one, groups=torch.arange(len(one.labels)) // 5) for one in found.domains]
        return Environments(tuple(domains), classes=2)


def test_patients_are_whole_in_each_part():
    made = HeldOut(Patients(), test=(0,), trial_seed=3)(seed=0, data_dir=None)
    for index in range(3):
        parts = [part for part, _ in made.by_split if part.environment == f"e{index}"]
        patients = [{int(row) // 5 for row in part.inputs[:, 1]} for part in parts]
        assert set.union(*patients) == set(range(SIZES[index] // 5))
        assert not set.intersection(*patients)
        assert sum(len(part.labels) for part in parts) == SIZES[index]


def test_groups_that_cannot_be_kept_together_are_refused():
    with pytest.raises(InputError, match=r"e0: got groups of samples, which files of whole environments do not keep"):
        AllEnvironments(Patients())(0, None)
    with pytest.raises(InputError, match="groups: all samples are of one group, expected at least 2"):
        split_groups(torch.zeros(4), 0.2, 0)
    with pytest.raises(InputError, match=r"groups have shape \[3\], expected \[4\], one for each sample"):
        Domain("a", torch.zeros(4, 2), torch.zeros(4).long(), groups=torch.zeros(3))


def test_a_part_of_a_domain_has_its_groups():
    whole = Domain("a", torch.eye(3), torch.tensor([0, 1, 0]), groups=torch.tensor([5, 6, 7]))
    assert whole.part([2, 0]).groups.tolist() == [7, 5]
