"""Problems and their words."""

import copy
import datetime
import pickle

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fishr.configuration.problems import ConfigurationError, Problem, described, quoted, suggestion
from fishr.errors import InputError, one_line


def test_paths_grow_from_the_inside_out():
    problem = Problem("", "wrong").under("[1]").under("rules").under("goal")
    assert str(problem) == "goal.rules[1]: wrong"
    assert str(Problem("", "wrong")) == "wrong"


def test_the_error_is_an_input_error_that_carries_its_problems():
    problems = [Problem("a", "one"), Problem("b", "two")]
    error = ConfigurationError(problems, "run.toml")
    assert isinstance(error, InputError)
    assert error.problems == tuple(problems)
    assert str(error) == "run.toml: a: one; b: two"
    assert str(ConfigurationError(problems)) == "a: one; b: two"


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_error_survives_being_copied(copied):  # type: ignore[no-untyped-def]
    again = copied(ConfigurationError([Problem("a", "one")], "run.toml"))
    assert (again.problems, again.source, str(again)) == ((Problem("a", "one"),), "run.toml", "run.toml: a: one")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "true (a boolean)"),
        (3, "3 (a whole number)"),
        pytest.param(10**5000, "16610 bits (a whole number)", id="huge"),
        (1e-05, "1e-05 (a decimal number)"),
        ("a\nb", '"a\\nb" (a string)'),
        ("x" * 100, '"' + "x" * 57 + '..." (a string)'),
        (datetime.date(2020, 1, 2), "2020-01-02 (a date or time)"),
        (datetime.time(1, 2), "01:02:00 (a date or time)"),
        ([], "an array"),
        ((), "an array"),
        ({}, "a table"),
        (None, "nothing"),
        (int, "the class int"),
        (object(), "an object of class object"),
    ],
)
def test_values_in_words(value: object, words: str):
    assert described(value) == words


@given(st.text(st.characters()))
def test_every_text_is_shown_on_one_printable_line(text: str):
    assert one_line(text).isprintable()
    assert described(text).isprintable()
    assert quoted(text).isprintable()


@pytest.mark.parametrize(
    ("got", "names", "hint"),
    [
        ("fishr", ["ERM", "Fishr"], '; did you mean "Fishr"?'),
        ("erm", ["Term", "ERM", "Fishr"], '; did you mean "ERM"?'),
        ("Min", ["mine", "Mine"], '; did you mean "Mine"?'),
        ("l3", ["steps", "l2"], '; did you mean "l2"?'),
        ("emma", [], ""),
        ("varianse", ["variance", "covariance"], '; did you mean "variance"?'),
        ("zzz", ["ERM", "Fishr"], ""),
        (3, ["ERM"], ""),
        ("1", [1, True], ""),
    ],
)
def test_the_closest_known_name_is_suggested(got: object, names: list[object], hint: str):
    assert suggestion(got, names) == hint
