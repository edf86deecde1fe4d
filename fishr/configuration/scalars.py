"""Numbers, texts and paths of a table, read strictly."""

import math
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

from fishr.configuration.declared_types import SCALARS
from fishr.configuration.problems import ConfigurationError, flaw, one_of, suggestion, unexpected
from fishr.errors import one_line


def read_scalar(value: object, declared: Any) -> Any:
    """Return a scalar as it is; of numbers and paths, as the declared type."""
    if get_origin(declared) is Literal:
        if any(type(value) is type(known) and value == known for known in get_args(declared)):
            return value
        raise unexpected(value, one_of(get_args(declared)) + suggestion(value, get_args(declared)))
    if declared not in SCALARS:
        raise unsupported(declared)
    got, held = cast(Any, value), {float: (int, float), Path: (str,)}.get(declared, (declared,))
    if (
        not isinstance(value, held)
        or isinstance(value, bool) is not (declared is bool)
        or (declared is Path and not got)
    ):
        raise unexpected(value, SCALARS[declared])
    if declared is int and not -(2**63) <= got < 2**63:
        raise unexpected(value, "a whole number of at most 64 bits")
    if declared is float and not isinstance(value, float) and abs(got) >= 2**1024:
        raise unexpected(value, "a number that is at most about 1.8e308")
    if declared is float and not math.isfinite(got):
        raise unexpected(value, "a finite number")
    if held == (str,) and ("\0" in got or any("\ud800" <= character <= "\udfff" for character in got)):
        raise unexpected(value, "text without NUL characters" if "\0" in got else "text that UTF-8 can encode")
    return declared(got) if declared in (float, Path) else value


def unsupported(declared: Any) -> ConfigurationError:
    return flaw(f"a field of type {one_line(str(declared))} cannot be written in a file")
