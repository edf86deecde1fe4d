"""structure(unstructure(x)) == x for whatever can be written, through TOML text too; the rest is refused."""

import tomllib
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import attrs
import hypothesis.strategies as st
import pytest
from attrs import field, frozen
from hypothesis import given
from naming import stable_name

from fishr.configuration import structure, unstructure
from fishr.configuration.families import Family
from fishr.configuration.problems import ConfigurationError, Problem
from fishr.configuration.toml import toml_text


class Rule(Protocol):
    def __call__(self, step: int) -> float: ...


class Data(Protocol):
    def load(self) -> object: ...


class Ruled:
    def __call__(self, step: int) -> float:
        return 0.0


class Loaded:
    def load(self) -> object:
        return ()


@frozen
class Fixed(Ruled):
    value: float


@frozen
class Jump(Ruled):
    at: int
    before: float
    after: float


@frozen
class Chain(Ruled):
    rules: tuple[Rule, ...]
    ends: tuple[int, ...] = ()


@frozen(init=False)
class Sum(Ruled):
    terms: dict[str, Rule]

    def __init__(self, **terms: Rule) -> None:
        self.__attrs_init__(terms)


@frozen
class Digits(Loaded):
    flips: tuple[float, float]
    folder: Path | None = None


@frozen
class Files(Loaded):
    path: Path
    names: tuple[str, ...] = ()
    _depth: int = 0


@frozen
class Trial:
    name: str
    rule: Rule
    data: Data
    sum: Sum
    flag: bool
    count: int | None
    either: int | str | tuple[float, ...]
    over: Literal["mean", "sum", 1]
    only: Digits | None = None
    limits: dict[str, tuple[Rule, ...]] = field(factory=dict)


FAMILIES = (Family(Rule, (__name__,), number="Fixed"), Family(Data, (__name__,)))

whole = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
keys = texts.filter(lambda key: key != "kind")
paths = st.lists(st.text("abc._ é", min_size=1), min_size=1, max_size=3).map(lambda parts: Path(*parts))
rules = st.recursive(
    st.builds(Fixed, numbers) | st.builds(Jump, whole, numbers, numbers),
    lambda inner: (
        st.builds(Chain, st.lists(inner, max_size=3).map(tuple), st.lists(whole, max_size=2).map(tuple))
        | st.dictionaries(keys, inner, max_size=3).map(lambda terms: Sum(**terms))
    ),
    max_leaves=5,
)
digits = st.builds(Digits, st.tuples(numbers, numbers), st.none() | paths)
files = st.builds(Files, paths, st.lists(texts, max_size=3).map(tuple), whole)
trials = st.builds(
    Trial,
    name=texts,
    rule=rules,
    data=digits | files,
    sum=st.dictionaries(texts, rules, max_size=3).map(lambda terms: Sum(**terms)),
    flag=st.booleans(),
    count=st.none() | whole,
    either=whole | texts | st.lists(numbers, max_size=3).map(tuple),
    over=st.sampled_from(["mean", "sum", 1]),
    only=st.none() | digits,
    limits=st.dictionaries(texts, st.lists(rules, max_size=2).map(tuple), max_size=2),
)


@pytest.mark.slow
@given(trials)
def test_an_object_reads_back_as_itself_from_its_table_and_from_toml(trial: Trial):
    table = unstructure(trial, FAMILIES)
    assert structure(table, Trial, families=FAMILIES) == trial
    again = tomllib.loads(toml_text(table))
    assert again == table
    assert structure(again, Trial, families=FAMILIES) == trial


@pytest.mark.slow
@given(trials)
def test_the_text_is_stable(trial: Trial):
    text = toml_text(unstructure(trial, FAMILIES))
    read = structure(tomllib.loads(text), Trial, families=FAMILIES)
    assert toml_text(unstructure(read, FAMILIES)) == text


def trial(**changes: Any) -> Trial:
    sound: dict[str, Any] = {
        "name": "first",
        "rule": Fixed(2.0),
        "data": Digits((0.1, 0.2)),
        "sum": Sum(one=Jump(1, 0.0, 1.0), two=Fixed(1.0)),
        "flag": True,
        "count": None,
        "either": 3,
        "over": "mean",
    }
    return Trial(**{**sound, **changes})


def test_the_table_of_an_object_in_full():
    assert unstructure(trial(), FAMILIES) == {
        "name": "first",
        "rule": 2.0,
        "data": {"kind": "Digits", "flips": [0.1, 0.2]},
        "sum": {"one": {"kind": "Jump", "at": 1, "before": 0.0, "after": 1.0}, "two": 1.0},
        "flag": True,
        "either": 3,
        "over": "mean",
        "limits": {},
    }


def test_a_whole_number_held_as_a_number_is_written_as_a_decimal_one():
    written = unstructure(Fixed(2), FAMILIES)
    assert (written, type(written["value"])) == ({"value": 2.0}, float)


class Heir(Digits):
    pass


# What is changed · the path of the one problem · a fragment of its message.
UNWRITABLE: list[tuple[dict[str, Any], str, str]] = [
    ({"name": 3}, "name", "got 3 (a whole number), expected a string"),
    ({"name": "\ud800"}, "name", "expected text that UTF-8 can encode"),
    ({"name": None}, "name", "missing, expected a string"),
    ({"flag": 1}, "flag", "expected true or false"),
    ({"count": "3"}, "count", "expected a whole number"),
    ({"count": True}, "count", "expected a whole number"),
    ({"rule": Fixed(float("inf"))}, "rule", "got inf"),
    ({"rule": Jump(1, 0.0, float("nan"))}, "rule.after", "got nan"),
    ({"rule": 2.0}, "rule", "got 2.0 (a decimal number), expected a Fixed"),
    ({"rule": lambda step: 1.0}, "rule", "<lambda> cannot be imported by name"),
    ({"rule": Sum(kind=Fixed(1.0))}, "rule", "nothing else can be called kind"),
    ({"data": Fixed(1.0)}, "data", 'Fixed" is no Data, it lacks load'),
    ({"data": Digits((0.1,))}, "data.flips", "length 1"),  # type: ignore[arg-type]
    ({"data": Digits([0.1, 0.2])}, "data.flips", "expected a tuple"),  # type: ignore[arg-type]
    ({"data": Files(PurePosixPath("a"))}, "data.path", "got an object of class PurePosixPath, expected a path"),  # type: ignore[arg-type]
    ({"sum": Fixed(1.0)}, "sum", "got an object of class Fixed, expected a table"),
    ({"sum": Sum(one=None)}, "sum.one", "got nothing"),  # type: ignore[arg-type]
    ({"over": "median"}, "over", 'expected one of "mean", "sum", 1'),
    ({"over": True}, "over", "got true"),
    ({"limits": [1]}, "limits", "got an array, expected a table"),
    ({"limits": {"a": (Fixed(1.0), 3)}}, "limits.a[1]", "got 3"),
    ({"limits": {3: ()}}, "limits.3", "got 3"),
]


@pytest.mark.parametrize(("changes", "path", "fragment"), UNWRITABLE, ids=stable_name)
def test_what_could_not_be_read_back_is_not_written(changes: dict[str, Any], path: str, fragment: str):
    with pytest.raises(ConfigurationError) as caught:
        unstructure(trial(**changes), FAMILIES)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert fragment in problem.message


def test_every_part_that_cannot_be_written_is_listed():
    with pytest.raises(ConfigurationError) as caught:
        unstructure(trial(name=3, data=Digits(("a", 0.2)), count=0.5), FAMILIES)  # type: ignore[arg-type]
    assert [problem.path for problem in caught.value.problems] == ["name", "data.flips[0]", "count"]


def test_none_where_the_default_is_another_value_is_refused():
    @frozen
    class Cut:
        depth: int | None = 3

    with pytest.raises(ConfigurationError) as caught:
        unstructure(Cut(None), FAMILIES)
    message = "None cannot be written, for a key that is left out means the default"
    assert caught.value.problems == (Problem("depth", message),)


@pytest.mark.parametrize("obj", [3, "text", {"a": 1}, None, Fixed])
def test_only_objects_of_attrs_classes_have_a_table(obj: object):
    with pytest.raises(ConfigurationError, match="expected an object of a frozen attrs class"):
        unstructure(obj, FAMILIES)


def test_a_field_of_one_class_holds_exactly_that_class():
    @frozen
    class Holder:
        one: Digits

    for held in (Fixed(1.0), Heir((0.1, 0.2))):
        with pytest.raises(ConfigurationError, match=r"^one: got an object of class (Fixed|Heir), expected a table$"):
            unstructure(Holder(held), FAMILIES)  # type: ignore[arg-type]


def test_a_field_without_a_strict_hook_is_refused_by_name():
    cls: Any = attrs.make_class("Odd", {"x": field(type=list[int])}, frozen=True)
    with pytest.raises(ConfigurationError, match=r"^x: a field of type list\[int\] cannot be written in a file$"):
        unstructure(cls([1]), FAMILIES)


def test_a_union_of_classes_is_no_family():
    @frozen
    class Holder:
        one: Digits | Fixed

    with pytest.raises(ConfigurationError, match=r"^one: a field of type .* cannot be written in a file$"):
        unstructure(Holder(Fixed(1.0)), FAMILIES)


@frozen
class Odd(Loaded):
    kind: str


def test_a_class_with_a_field_called_kind_is_no_member():
    with pytest.raises(ConfigurationError, match="data: the key kind names the class"):
        unstructure(trial(data=Odd("x")), FAMILIES)
