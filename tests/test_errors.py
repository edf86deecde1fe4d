"""Texts of errors stay on one line."""

import errno

import pytest

from fishr.errors import one_line, reason


def test_white_space_and_control_characters_leave_one_line() -> None:
    assert one_line("first\n  second\tthird") == "first second third"
    assert one_line("a\x1b[31mb") == "a\\x1b[31mb"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "closed/run"), "Permission denied"),
        (OSError("cannot\nread"), "cannot read"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "'a'"),
    ],
)
def test_a_reason_is_the_systems_the_message_or_the_class(error: Exception, text: str) -> None:
    assert reason(error) == text
