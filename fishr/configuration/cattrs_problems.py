"""Problems that cattrs reports, each with its path."""

from typing import Any

import attrs
from cattrs.errors import AttributeValidationNote, BaseValidationError, ForbiddenExtraKeysError, IterableValidationNote

from fishr.configuration.declared_types import is_array, is_record, settings
from fishr.configuration.families import KIND
from fishr.configuration.problems import ConfigurationError, Problem, listed, quoted, suggestion, text_value
from fishr.errors import one_line

# Problems of one table or array that are listed: finding the nearest name of each takes time.
MOST = 20


def problems_of(error: Exception, cls: Any) -> list[Problem]:
    """Return the problems that an exception of cattrs reports, each with its path."""
    if isinstance(error, ConfigurationError):
        return list(error.problems)
    if isinstance(error, ForbiddenExtraKeysError):
        keys = sorted(error.extra_fields, key=lambda key: (len(str(key)), str(key)))
        more = [Problem("", f"{len(keys) - MOST:,} more unknown keys")] if len(keys) > MOST else []
        return [*(_unknown(key, error.cl) for key in keys[:MOST]), *more]
    if not isinstance(error, BaseValidationError):
        return [complaint(cls, error)]
    parts = sorted(error.exceptions, key=lambda part: not isinstance(part, ForbiddenExtraKeysError))
    found = [problem for part in parts[:MOST] for problem in _located(part, error.cl)]
    return found + ([Problem("", "the entries after these are not listed")] if len(parts) > MOST else [])


def _located(error: Exception, cls: Any) -> list[Problem]:
    """Return the problems of a part of a table under its key or index."""
    found = problems_of(error, cls)
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return [problem.under(str(attrs.fields_dict(cls)[note.name].alias)) for problem in found]
        if isinstance(note, IterableValidationNote):
            step = f"[{note.index}]" if is_array(cls) else quoted(str(note.index))
            return [problem.under(step) for problem in found]
    return found


def _unknown(key: object, cls: type[Any]) -> Problem:
    within = [name for name, one in settings(cls).items() if is_record(one.type) and key in settings(one.type)]
    if within:
        hint = f"; did you mean {text_value(f'{within[0]}.{key}')}?"
    else:
        hint = suggestion(key, settings(cls)) or f", {cls.__name__} takes {listed(settings(cls)) or 'none'}"
    renamed = [name for name, one in settings(cls).items() if one.metadata.get("formerly") == key]
    hint = f", it is now {renamed[0]}" if renamed else hint
    return Problem(
        quoted(str(key)), "unknown key" + (f", this table is always a {cls.__name__}" if key == KIND else hint)
    )


def complaint(cls: Any, error: Exception) -> Problem:
    """Return the problem of a refusal by a class; anything else that a class of the library raises is a fault of it."""
    ours = getattr(cls, "__module__", "").startswith("fishr.") and not isinstance(error, ValueError | TypeError)
    if isinstance(error, RecursionError) or ours:
        raise error
    # Some validators put objects behind their message.
    message = one_line(error.args[0] if error.args and isinstance(error.args[0], str) else str(error))
    name, colon, rest = message.partition(": ")
    if colon and attrs.has(cls) and name in attrs.fields_dict(cls):
        return Problem(name, rest)
    return Problem("", message or type(error).__name__)
