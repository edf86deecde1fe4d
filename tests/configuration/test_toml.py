"""Files: what is wrong with one is one line that starts with its name."""

from pathlib import Path

import pytest
from attrs import frozen

from fishr.configuration import toml
from fishr.configuration.problems import ConfigurationError
from fishr.configuration.toml import toml_text


@frozen
class Goal:
    l2: float = 0.0


@frozen
class Run:
    goal: Goal
    steps: int
    name: str = "first"


def load(path: Path | str, overrides: tuple[str, ...] = ()) -> Run:
    return toml.load(path, Run, overrides)


def told(path: Path | str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path, overrides)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.toml"


def test_a_file_is_read_and_overridden(path: Path):
    path.write_text("steps = 3\n[goal]\nl2 = 1\n")
    assert load(path) == Run(Goal(1.0), 3)
    assert load(str(path), ("goal.l2=0.5", "name=second")) == Run(Goal(0.5), 3, "second")


def test_the_mark_and_the_line_ends_of_other_systems_are_read(path: Path):
    path.write_bytes(b"\xef\xbb\xbfsteps = 3\r\n[goal]\r\n")
    assert load(path) == Run(Goal(), 3)


def test_all_problems_stand_after_the_name_of_the_file(path: Path):
    path.write_text('steps = "3"\nnam = 1\n')
    assert told(path) == (
        f'{path}: nam: unknown key; did you mean "name"?; goal: missing, expected a table; '
        'steps: got "3" (a string), expected a whole number'
    )


def test_an_override_at_fault_stands_after_the_name_of_the_file(path: Path):
    path.write_text("steps = 3\n[goal]\n")
    assert told(path, ("steps.x=3",)).startswith(f"{path}: steps: got 3")


def test_a_file_that_is_not_there(path: Path):
    assert told(path) == f"{path}: no such file"


def test_a_directory(tmp_path: Path):
    assert told(tmp_path) == f"{tmp_path}: this is a directory, expected a TOML file"


def test_a_path_through_a_file(path: Path):
    path.write_text("")
    assert told(path / "below") == f"{path}/below: the file cannot be read: Not a directory"


def test_a_name_that_no_file_can_have():
    assert told("a\0b") == "a\\x00b: the file cannot be read: embedded null byte"


def test_a_name_of_two_lines_is_told_on_one(tmp_path: Path):
    assert told(tmp_path / "a\nb").endswith("a b: no such file")


def test_a_file_that_may_not_be_read(path: Path, unprivileged: None):
    path.write_text("")
    path.chmod(0)
    assert told(path) == f"{path}: the file cannot be read: Permission denied"


def test_a_file_that_is_not_utf8(path: Path):
    path.write_bytes(b"steps = 3\nname = '\xff'\n")
    assert told(path) == f"{path}: line 2: this is not UTF-8 text, save the file as UTF-8"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("steps = 3\nname = first\n", "line 2, column 8"),
        ("steps = 3\nsteps = 4\n", "line 2, column 10"),
        ("steps = 3\nname = [1,", "line 2, column 11"),
        ("steps", "line 1, column 6"),
        ("[goal]\n[goal]\n", "line 2, column 6"),
    ],
)
def test_wrong_syntax_has_line_and_column(path: Path, text: str, place: str):
    path.write_text(text)
    assert told(path).startswith(f"{path}: {place}: this is no TOML: ")


@pytest.mark.parametrize("text", ["steps = " + "9" * 5000, "steps = " + "[" * 20000])
def test_what_python_cannot_read_is_one_line_too(path: Path, text: str):
    path.write_text(text)
    assert told(path).startswith(f"{path}: this is no TOML that can be read: ")


def test_scalars_stand_before_tables_and_otherwise_the_order_is_kept():
    text = toml_text({"b": {"d": {"e": 1}, "c": 2}, "z": 3, "a": [1.5]})
    assert text == "z = 3\na = [\n    1.5,\n]\n\n[b]\nc = 2\n\n[b.d]\ne = 1\n"
