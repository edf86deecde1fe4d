import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishr.data.images.listed_images import checked_name, chosen_environments, class_names, folded, portable, rows_taken
from fishr.errors import InputError


@given(classes=st.lists(st.sampled_from("abcd"), min_size=1, max_size=60), samples=st.integers(1, 70))
def test_rows_taken_are_so_many_in_order_and_of_all_classes(classes, samples):
    rows = rows_taken(classes, samples)
    assert rows == sorted(set(rows))
    assert len(rows) == min(samples, len(classes))
    assert set(rows) <= set(range(len(classes)))
    taken = {classes[row] for row in rows}
    assert len(taken) == min(samples, len(set(classes)))


@given(classes=st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), samples=st.integers(1, 40))
def test_rows_taken_by_the_rule_written_out(classes, samples):
    shuffled = np.random.RandomState(0).permutation(len(classes)).tolist()
    ahead, rest = [], []
    for row in shuffled:
        seen = {classes[other] for other in ahead}
        (rest if classes[row] in seen else ahead).append(row)
    assert rows_taken(classes, samples) == sorted((ahead + rest)[:samples])


def test_rows_taken_are_spread():
    rows = rows_taken(["a"] * 500 + ["b"] * 500, 100)
    assert 30 < sum(row < 500 for row in rows) < 70
    assert rows_taken(["a"] * 3, None) == [0, 1, 2]
    assert rows_taken(["cat"] * 50 + ["dog"], samples=3) == [11, 29, 50]


def test_environments_are_sorted_unless_named_and_must_be_there():
    assert chosen_environments("x", ["b", "c", "a"], None) == ("a", "b", "c")
    assert chosen_environments("x", ["b", "c", "a"], ("c", "a")) == ("c", "a")
    with pytest.raises(InputError, match="x: it has no environment 'd' and 'e', expected d and e; it has b"):
        chosen_environments("x", ["b"], ("e", "d"))


def test_one_class_is_none():
    with pytest.raises(InputError, match="PACS: got no class, expected at least 2 to tell apart"):
        class_names("PACS", [])


def test_names_have_one_form():
    assert checked_name("data", "cafe\u0301") == "caf\u00e9"
    assert portable("caf" + chr(0xDCE9) + ".png") == "caf\\udce9.png"
    assert folded("Caf\u00c9") == folded("cafe\u0301")
