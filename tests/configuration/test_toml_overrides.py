"""Overrides `a.b.c=value` change a copy of a table."""

import copy
from typing import Any

import hypothesis.strategies as st
import pytest
import tomli_w
from attrs import frozen
from hypothesis import example, given

from fishr.configuration.problems import ConfigurationError
from fishr.configuration.structure import structure
from fishr.configuration.toml import apply_overrides, parse_override

TABLE: dict[str, Any] = {
    "seed": 0,
    "widths": [1, 2],
    "data": {"kind": "Jump", "at": 190, "after": 90.0},
    "goal": {"l2": 0.5},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("300", 300),
        ("1e-3", 1e-3),
        ("-0.5", -0.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"300"', "300"),
        ("'300'", "300"),
        ('""', ""),
        ("{kind = 'Fixed', value = 1}", {"kind": "Fixed", "value": 1}),
        ("float32", "float32"),
        ("True", "True"),
        ("runs/a b.h5", "runs/a b.h5"),
        ("a=b", "a=b"),
        ("  300 ", 300),
        ("two\nlines=1", "two\nlines=1"),
        ("1\nother = 2", "1\nother = 2"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_value_is_toml_or_else_a_string(text: str, value: object):
    keys, parsed = parse_override(f"a.b={text}")
    assert keys == ("a", "b")
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a=1", ("a",)),
        (" a . b =1", ("a", "b")),
        ('a."b c"=1', ("a", "b c")),
        ("a.'x=y.z'=1", ("a", "x=y.z")),
        ('a.""=1', ("a", "")),
    ],
)
def test_a_key_is_dotted_as_in_toml(text: str, keys: tuple[str, ...]):
    assert parse_override(text) == (keys, 1)


def test_values_are_set_in_their_order_and_tables_made_on_the_way():
    changed = apply_overrides(TABLE, ["seed=1", "seed=2", "goal.l2=1e-3", "goal.cost.main.ema=0.5"])
    assert changed == {
        **TABLE,
        "seed": 2,
        "goal": {"l2": 1e-3, "cost": {"main": {"ema": 0.5}}},
    }


def test_the_given_table_stays_as_it_is():
    before = copy.deepcopy(TABLE)
    apply_overrides(TABLE, ["goal.l2=1", "goal.cost.main=2", "data.kind=Fixed", "new.table=1"])
    assert before == TABLE
    assert apply_overrides(TABLE, []) is not TABLE


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("seed", ('the override "seed" has no =', "KEY=VALUE")),
        ("", ("has no =",)),
        ('"a=1', ("has no =",)),
        ("=3", ("has no proper key",)),
        ("a..b=3", ("has no proper key",)),
        ("a b=3", ("has no proper key",)),
        ("a[0]=3", ("has no proper key",)),
        ("a#b=3", ("has no proper key",)),
        ("[x]\na=3", ("has no =",)),
        ("seed=", ("seed: the override has no value", 'write ""')),
        ("widths=[1, 2", ('widths: "[1, 2" starts like a TOML value',)),
        ('a.b="x', ("a.b:", "check quotes and brackets")),
        ("seed.x=3", ("seed: got 0 (a whole number), which has no x; set seed itself",)),
        ("goal.l2.at.x=3", ("goal.l2: got 0.5 (a decimal number), which has no at",)),
        ("a." * 5000 + "a=3", ("is nested too deeply",)),
        ("widths.0=3", ("widths: got an array, which has no 0",)),
    ],
)
def test_an_override_that_cannot_be_applied_is_one_line(override: str, fragments: tuple[str, ...]):
    with pytest.raises(ConfigurationError) as caught:
        apply_overrides(TABLE, [override])
    assert len(str(caught.value).splitlines()) == 1
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_every_override_at_fault_is_listed():
    with pytest.raises(ConfigurationError) as caught:
        apply_overrides(TABLE, ["seed", "seed.x=3", "goal.l2=1", "goal="])
    assert len(caught.value.problems) == 3


def test_an_unknown_path_is_told_by_the_strict_reader():
    @frozen
    class Goal:
        l2: float

    @frozen
    class Run:
        goal: Goal

    with pytest.raises(ConfigurationError, match=r'^goal.l3: unknown key; did you mean "l2"\?$'):
        structure(apply_overrides({"goal": {"l2": 0.5}}, ["goal.l3=1"]), Run)


scalars = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), min_size=1, max_size=3), scalars)
def test_whatever_toml_writes_can_be_set(keys: list[str], value: object):
    nested: Any = value
    written = tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
    dotted = ".".join(tomli_w.dumps({key: 0}).removesuffix(" = 0\n") for key in keys)
    for key in reversed(keys):
        nested = {key: nested}
    assert apply_overrides({}, [f"{dotted}={written}"]) == nested


@given(st.text())
@example("#=")
def test_no_text_is_a_traceback(text: str):
    told = ""
    try:
        apply_overrides(TABLE, [text])
    except ConfigurationError as error:
        told = str(error)
    assert len(told.splitlines()) <= 1


def test_a_new_kind_begins_its_table_anew():
    table = {"head": {"kind": "LinearHead", "init": "torch"}, "featurizer": {"widths": [5]}, "seed": 1}
    changed = apply_overrides(table, ["head.kind=MLPHead", "head.widths=[3]", "featurizer.kind=MNISTCNN"])
    assert changed == {"head": {"kind": "MLPHead", "widths": [3]}, "featurizer": {"kind": "MNISTCNN"}, "seed": 1}
    assert table["head"] == {"kind": "LinearHead", "init": "torch"}


def test_what_overrides_set_survives_a_new_kind_in_either_order():
    table = {"a": {"head": {"kind": "LinearHead", "init": "torch"}}}
    changed = apply_overrides(table, ["a.head.widths.first=3", "a.head.kind=MLPHead"])
    assert changed == {"a": {"head": {"widths": {"first": 3}, "kind": "MLPHead"}}}


def test_the_same_kind_keeps_its_table():
    table = {"head": {"kind": "LinearHead", "init": "torch"}}
    assert apply_overrides(table, ["head.kind=LinearHead"]) == table


def test_a_kind_at_the_root_or_of_no_table():
    assert apply_overrides({"kind": "A", "x": 1}, ["kind=B"]) == {"kind": "B"}
    assert apply_overrides({}, ["head.kind=B"]) == {"head": {"kind": "B"}}
