"""DomainBed's seeds and splits: its own numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishr.data.splits import seed_hash, split_rows
from fishr.errors import InputError

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
    kept, held_out = split_rows(10, 0.2, seed_hash(*arguments))
    assert held_out + kept == ORDERS[arguments]
    assert len(held_out) == 2


@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 2**31 - 1))
def test_every_row_is_in_one_of_the_two(count, fraction, seed):
    if not 0 < int(count * fraction) < count:
        with pytest.raises(InputError, match="expected at least one of each"):
            split_rows(count, fraction, seed)
        return
    kept, held_out = split_rows(count, fraction, seed)
    assert sorted(kept + held_out) == list(range(count))
    assert len(held_out) == int(count * fraction)
