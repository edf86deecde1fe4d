"""Test environments and splits: names, rows, refusals; what is tested is never augmented."""

import pytest
import torch
from attrs import evolve, field, frozen

from fishr.data.domains import Domain, Environments
from fishr.data.held_out import AllEnvironments, HeldOut, check_test_environments
from fishr.data.splits import seed_hash, split_rows
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
        kept, held_out = split_rows(size, 0.2, seed_hash(7, index))
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
    with pytest.raises(InputError, match=r"environment 0 \(e0\): holdout_fraction: got 0.05 of 10 rows"):
        HeldOut(Source(), test=(1,), holdout_fraction=0.05)(0, None)


def test_no_test_environment_is_fine():
    check_test_environments((), ("a", "b"))
    assert len(HeldOut(Source(), test=())(0, None).training) == 3
