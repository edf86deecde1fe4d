"""The two errors of the package, and texts of errors on one line."""


def one_line(text: str) -> str:
    """Return a text on one line: each run of white space becomes a space, control characters are escaped."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def reason(error: BaseException) -> str:
    """Return an exception's reason on one line: the system's own, else its message, else its class."""
    return one_line(getattr(error, "strerror", None) or str(error)) or type(error).__name__


class InputError(ValueError):
    """The input cannot be used; the message names what was got, what was expected and what to do.

    The command line prints it as one line on stderr and exits with code 2.
    """


class RunFailed(RuntimeError):
    """A valid request could not be completed; the message names the step and the reason.

    The command line prints it as one line on stderr and exits with code 1.
    """
