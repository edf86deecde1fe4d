"""The two ways a request can fail: what was asked cannot be done, or doing it failed."""


def one_line(text: str) -> str:
    """Return a text on one line: runs of white space become one space, control characters are escaped.

    Args:
        text: Any text, such as the message of a foreign exception.

    Returns:
        The text without line breaks.

    Example:
        >>> one_line("first\\n  second")
        'first second'
    """
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


class InputError(ValueError):
    """What was given cannot be used; the message says what was got, what was expected and what to do.

    The command line prints it as one line on stderr and exits with code 2.

    Example:
        >>> raise InputError("steps: got -1, expected a whole number of at least 1")
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: steps: got -1, expected a whole number of at least 1
    """


class RunFailed(RuntimeError):
    """Work that was validly asked for could not be completed; the message says at which step and why.

    The command line prints it as one line on stderr and exits with code 1.

    Example:
        >>> raise RunFailed("step 12: the loss is nan")
        Traceback (most recent call last):
            ...
        fishr.errors.RunFailed: step 12: the loss is nan
    """
