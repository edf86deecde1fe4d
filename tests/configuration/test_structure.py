"""Tables become objects strictly: each malformed table is told what is wrong and where."""

from enum import StrEnum
from typing import Any, Literal

import attrs
import pytest
from attrs import field, frozen
from naming import stable_name
from trials import (
    DELETED,
    FAMILIES,
    MAIN,
    Cost,
    Digits,
    Fixed,
    Goal,
    Jump,
    Net,
    Sum,
    Trial,
    Variance,
    Weighted,
    problems,
    read,
    table,
)

from fishr.configuration.problems import ConfigurationError, Problem
from fishr.configuration.structure import structure
from fishr.errors import InputError


def test_a_sound_table_is_the_object_written_by_hand():
    main = Weighted(Variance(ema=0.95), Jump(at=190, before=1.0, after=90.0))
    assert read() == Trial(
        name="first",
        data=Digits(flips=(0.1, 0.2)),
        net=Net(widths=(8, 8)),
        goal=Goal(Sum(main=main), l2=0.5),
        steps=300,
    )


# What is changed · the path of the one problem · fragments of its message.
MALFORMED: list[tuple[dict[str, Any], str, tuple[str, ...]]] = [
    # Traps of cattrs: what a converter would silently make of another type.
    ({"steps": "5000"}, "steps", ('got "5000" (a string)', "expected a whole number")),
    ({"steps": 5000.7}, "steps", ("got 5000.7 (a decimal number)", "expected a whole number")),
    ({"steps": 5000.0}, "steps", ("got 5000.0 (a decimal number)", "expected a whole number")),
    ({"steps": True}, "steps", ("got true (a boolean)", "expected a whole number")),
    ({"verbose": "false"}, "verbose", ('got "false" (a string)', "expected true or false")),
    ({"verbose": 0}, "verbose", ("got 0 (a whole number)", "expected true or false")),
    ({"goal__l2": True}, "goal.l2", ("got true (a boolean)", "expected a number")),
    ({"goal__l2": "1.0"}, "goal.l2", ('got "1.0" (a string)', "expected a number")),
    ({"name": 3}, "name", ("got 3 (a whole number)", "expected a string")),
    ({"net__widths": "12"}, "net.widths", ('got "12" (a string)', "expected an array")),
    ({"net__widths": [8, "8"]}, "net.widths[1]", ('got "8" (a string)', "expected a whole number")),
    # Numbers that are none.
    ({"goal__l2": float("nan")}, "goal.l2", ("got nan", "expected a finite number")),
    ({"goal__l2": float("inf")}, "goal.l2", ("got inf", "expected a finite number")),
    ({"goal__l2": 10**400}, "goal.l2", ("1329 bits", "expected a number that is at most")),
    # Keys.
    ({"stepz": 3}, "stepz", ("unknown key", 'did you mean "steps"?')),
    ({MAIN + "penalty__emma": 3}, "goal.cost.main.penalty.emma", ("unknown key", 'did you mean "ema"?')),
    ({"net__zzz": 3}, "net.zzz", ("unknown key", 'Net takes "widths"')),
    ({"odd key\n": 3}, '"odd key\\n"', ("unknown key",)),
    ({"steps": DELETED}, "steps", ("missing", "expected a whole number")),
    ({"net": DELETED}, "net", ("missing", "expected a table")),
    ({MAIN + "schedule__at": DELETED}, "goal.cost.main.schedule.at", ("missing",)),
    # Kinds.
    ({"data__kind": DELETED}, "data.kind", ("missing", '"Digits", "Files"')),
    ({"data__kind": "digit"}, "data.kind", ('got "digit"', '"Files"', 'did you mean "Digits"?')),
    ({"data__kind": 3}, "data.kind", ("got 3 (a whole number)", '"Digits", "Files"')),
    ({"data__kind": "m:Digits"}, "data.kind", ('"m:Digits" needs code of the module m', "--plugin m")),
    ({"net__kind": "Net"}, "net.kind", ("unknown key", "this table is always a Net")),
    ({MAIN + "penalty__kind": "Jump"}, "goal.cost.main.penalty.kind", ('got "Jump"', '"Variance"')),
    ({MAIN + "kind": DELETED}, "goal.cost.main.kind", ("missing", '"Weighted"')),
    ({"data": "Digits"}, "data", ('got "Digits" (a string)', "a table whose kind is one of")),
    ({"data": None}, "data", ("got nothing", "a table whose kind is one of")),
    ({"goal__cost__kind": "Sum"}, "goal.cost.kind", ('got "Sum" (a string)', "expected a table")),
    # Choices and shapes.
    ({MAIN + "penalty__over": "Mean "}, "goal.cost.main.penalty.over", ('"mean", "sum"', 'did you mean "mean"?')),
    ({MAIN + "penalty__over": 1}, "goal.cost.main.penalty.over", ("got 1 (a whole number)", '"mean", "sum"')),
    ({"data__flips": [0.1]}, "data.flips", ("got an array of length 1", "expected one of length 2")),
    ({"data__flips": 0.1}, "data.flips", ("got 0.1", "expected an array of length 2")),
    ({"data__folder": 3}, "data.folder", ("got 3", "expected a path (a string)")),
    ({"data__folder": ""}, "data.folder", ('got ""', "expected a path (a string)")),
    ({"size": "half"}, "size", ('got "half"', '"full" or a whole number')),
    ({"net": 3}, "net", ("got 3 (a whole number)", "expected a table")),
    ({"net": [{"widths": [1]}]}, "net", ("got an array", "expected a table")),
    ({"limits": {"a b": "1"}}, 'limits."a b"', ('got "1" (a string)', "expected a whole number")),
    ({"limits": [1]}, "limits", ("got an array", "expected a table")),
    # Schedules: a number stands for one of them.
    ({MAIN + "schedule": "190"}, "goal.cost.main.schedule", ('got "190" (a string)', "expected a number or a table")),
    ({MAIN + "schedule": True}, "goal.cost.main.schedule", ("got true (a boolean)", "expected a number or")),
    ({MAIN + "schedule": float("nan")}, "goal.cost.main.schedule", ("got nan", "expected a finite number")),
    ({"rules": [1, "x"]}, "rules[1]", ('got "x" (a string)', "expected a number or a table")),
    ({"rules": [{"kind": "Jump", "at": 1, "before": "0", "after": 1}]}, "rules[0].before", ('got "0"',)),
    # What validators say is kept, with the path of the table or of the field they name.
    ({"goal__l2": -1.0}, "goal.l2", ("'l2' must be >= 0: -1.0",)),
    ({MAIN + "penalty__ema": 1.5}, "goal.cost.main.penalty.ema", ("got 1.5, expected a number from 0 up to 1",)),
    ({MAIN + "schedule": -2}, "goal.cost.main.schedule", ("'value' must be >= 0: -2.0",)),
    ({"goal__cost": {"": {"kind": "Variance"}}}, "goal.cost", ("a term needs a name",)),
]


@pytest.mark.parametrize(("changes", "path", "fragments"), MALFORMED, ids=stable_name)
def test_a_malformed_table_has_one_problem_with_its_path(
    changes: dict[str, Any], path: str, fragments: tuple[str, ...]
):
    (problem,) = problems(**changes)
    assert problem.path == path
    for fragment in fragments:
        assert fragment in problem.message


def test_every_problem_is_listed_in_the_order_of_the_fields():
    found = problems(
        stepz=1,
        name=3,
        data__kind="Digit",
        net__widths=["8", 8, 8.5],
        goal__l2=-1.0,
        goal__cost__main__penalty__ema=2.0,
        goal__cost__main__schedule__at="190",
        goal__cost__main__schedule__aftr=3,
        steps=0,
    )
    assert [problem.path for problem in found] == [
        "stepz",
        "name",
        "data.kind",
        "net.widths[0]",
        "net.widths[2]",
        "goal.cost.main.penalty.ema",
        "goal.cost.main.schedule.aftr",
        "goal.cost.main.schedule.at",
        "goal.l2",  # of a validator, beside the problems of another field of this table
        "steps",
    ]
    assert "'l2' must be" in found[-2].message
    assert "'steps' must be" in found[-1].message


def test_two_validators_of_one_table_are_both_heard():
    @frozen
    class Both:
        low: int = field(validator=attrs.validators.ge(0))
        high: int = field(validator=attrs.validators.le(9))

    with pytest.raises(ConfigurationError) as caught:
        structure({"low": -1, "high": 10}, Both, families=FAMILIES)
    assert [p.message for p in caught.value.problems] == ["'low' must be >= 0: -1", "'high' must be <= 9: 10"]


def test_a_validator_that_reads_a_faulty_field_is_silent():
    @frozen
    class Window:
        start: int
        stop: int = field()

        @stop.validator
        def _after_start(self, attribute: object, value: int) -> None:
            if value <= self.start:
                raise InputError(f"stop: got {value}, expected more than start")

    with pytest.raises(ConfigurationError) as caught:
        structure({"start": "0", "stop": -1}, Window, families=FAMILIES)
    assert [problem.path for problem in caught.value.problems] == ["start"]
    with pytest.raises(ConfigurationError, match=r"^stop: got -1, expected more than start$"):
        structure({"start": 0, "stop": -1}, Window, families=FAMILIES)


@pytest.mark.parametrize(
    ("validator", "value", "message"),
    [
        # These validators raise with further objects behind the message, which str() would print as a tuple.
        (attrs.validators.in_((1, 2)), 3, "'x' must be in (1, 2) (got 3)"),
        (attrs.validators.instance_of(str), 3, "'x' must be <class 'str'> (got 3 that is a <class 'int'>)."),
    ],
)
def test_the_message_of_a_validator_of_attrs_is_kept(validator: Any, value: int, message: str):
    cls: Any = attrs.make_class("Checked", {"x": field(type=int, validator=validator)}, frozen=True)
    with pytest.raises(ConfigurationError) as caught:
        structure({"x": value}, cls, families=FAMILIES)
    assert caught.value.problems == (Problem("x", message),)


def test_a_whole_number_where_a_number_is_expected_becomes_a_decimal_one():
    l2 = read(goal__l2=1).goal.l2
    assert (l2, type(l2)) == (1.0, float)


def test_a_number_for_a_schedule_is_a_constant():
    assert read(rules=[3, 0.5, {"kind": "Fixed", "value": 2}]).rules == (Fixed(3.0), Fixed(0.5), Fixed(2.0))


def test_an_absent_optional_key_means_the_default():
    @frozen
    class Cut:
        length: int | None
        depth: int | None = 3

    assert structure({}, Cut, families=FAMILIES) == Cut(length=None, depth=3)
    assert structure({"length": 2, "depth": 1}, Cut, families=FAMILIES) == Cut(2, 1)


def test_the_first_fitting_member_of_a_union_of_scalars_is_taken():
    assert read(size=3).size == 3
    assert read(size="full").size == "full"


def test_a_literal_number_is_not_a_boolean():
    @frozen
    class Level:
        level: Literal[0, 1]

    assert structure({"level": 1}, Level, families=FAMILIES) == Level(1)
    with pytest.raises(ConfigurationError, match="got true"):
        structure({"level": True}, Level, families=FAMILIES)


def test_a_flattened_class_under_a_kind_keeps_its_entries_beside_it():
    nested = {"kind": "Sum", "one": {"kind": "Variance"}}
    assert read(goal__cost={"all": nested}).goal.cost == Sum(all=Sum(one=Variance()))


class Colour(StrEnum):
    RED = "red"


class Whole(int):
    pass


@pytest.mark.parametrize("declared", [list[int], set[int], bytes, object, Any, Colour, Whole, dict[int, int], complex])
def test_types_without_a_strict_hook_are_refused_by_name(declared: Any):
    cls: Any = attrs.make_class("Odd", {"x": field(type=declared)}, frozen=True)
    for value in ("red", 3, [1], {}):
        with pytest.raises(ConfigurationError, match=r"^x: a field of type .* cannot be written in a file$"):
            structure({"x": value}, cls, families=FAMILIES)


def test_a_validator_of_a_converted_field_is_left_to_the_class():
    @frozen
    class Halved:
        whole: int = field(converter=lambda value: value / 2, validator=attrs.validators.instance_of(float))
        part: int = field(validator=attrs.validators.ge(0))

    assert structure({"whole": 3, "part": 0}, Halved, families=FAMILIES) == Halved(3, 0)
    with pytest.raises(ConfigurationError) as caught:
        structure({"whole": 3, "part": -1}, Halved, families=FAMILIES)
    assert caught.value.problems == (Problem("part", "'part' must be >= 0: -1"),)


def test_the_key_of_a_private_field_is_the_name_it_is_built_with():
    @frozen
    class Hidden:
        _depth: int
        derived: int = field(init=False, default=1)

    assert structure({"depth": 2}, Hidden, families=FAMILIES) == Hidden(depth=2)
    with pytest.raises(ConfigurationError, match="derived: unknown key"):
        structure({"depth": 2, "derived": 1}, Hidden, families=FAMILIES)


def test_a_root_that_is_no_table_is_a_problem_without_a_path():
    with pytest.raises(ConfigurationError) as caught:
        structure([1], Trial, families=FAMILIES)  # type: ignore[arg-type]
    assert caught.value.problems == (Problem("", "got an array, expected a table"),)


def test_a_key_that_is_no_string_is_a_problem():
    with pytest.raises(ConfigurationError, match=r"^limits\.3: got 3"):
        read(limits={3: 3})
    with pytest.raises(ConfigurationError, match=r"^3: unknown key"):
        structure({3: 3}, Net, families=FAMILIES)  # type: ignore[dict-item]


def test_a_member_of_the_protocol_as_the_root_is_told_by_its_kind():
    assert structure({"kind": "Variance", "ema": 0.5}, Cost, families=FAMILIES) == Variance(0.5)  # type: ignore


def test_tables_nested_without_end_are_one_problem():
    endless: dict[str, Any] = {"kind": "Variance"}
    for _ in range(2000):
        endless = {"kind": "Weighted", "penalty": endless, "schedule": 1.0}
    with pytest.raises(ConfigurationError, match=r"^tables are nested too deeply to be read$"):
        structure({"main": endless}, Sum, families=FAMILIES)


def test_the_table_stays_as_it_is():
    given = table()
    structure(given, Trial, families=FAMILIES)
    assert given == table()


def test_a_renamed_key_is_read_under_its_earlier_name():
    from fishr.training.compute import Compute

    assert structure({"pieces": 2}, Compute) == structure({"micro_batches": 2}, Compute) == Compute(micro_batches=2)
    with pytest.raises(ConfigurationError, match="pieces: unknown key, it is now micro_batches"):
        structure({"pieces": 2, "micro_batches": 2}, Compute)


@pytest.mark.parametrize("declared", [float | int | bool | str, str | bool | int | float])
@pytest.mark.parametrize("value", [8, 8.0, True, "8"])
def test_a_value_of_several_types_keeps_its_own(declared: Any, value: Any) -> None:
    """Whatever their order: a whole number would also do as a float."""

    @frozen
    class Loose:
        values: dict[str, declared]  # type: ignore[valid-type]

    found = structure({"values": {"x": value}}, Loose).values["x"]
    assert (type(found), found) == (type(value), value)
