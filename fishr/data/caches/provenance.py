"""What a cache was made of: a key that stands for it, and the first field in which two differ."""

import json
import tomllib
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from fishr.errors import InputError

# When and where it was made changes no row beyond rounding.
_TOLD_ONLY = ("created", "device")
# The last part of a version mends faults.
_VERSIONS = ("library", "torch")


def cache_key(provenance: Mapping[str, Any]) -> str:
    """Hash of everything in a provenance that decides what the rows are.

    Time and device of the making are left out, versions count without their last part, and the order of the
    domains' names is free.

    Args:
        provenance: names to texts, numbers and tuples of texts.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> cache_key({"seed": 0, "torch": "2.9.0"}) == cache_key({"torch": "2.9.1+cpu", "seed": 0, "created": "now"})
        True
        >>> cache_key({"seed": 0}) == cache_key({"seed": 1})
        False
    """
    return sha256(json.dumps(_decisive(provenance), sort_keys=True).encode()).hexdigest()


def check_fit(
    path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], *, but: Collection[str] = (), remedy: str = ""
) -> None:
    """Refuse a cache that was made of something else than is wanted, and name the first field that differs.

    Args:
        path: of the cache, for the message.
        found: its provenance.
        wanted: the provenance it is to have, whose order is that of the comparison.
        but: fields that may differ.
        remedy: what the message says to do.

    Raises:
        InputError: they differ in what decides the rows.

    Example:
        >>> check_fit(Path("a.h5"), {"data": "flips = [0.1]"}, {"data": "flips = [0.2]"})
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: a.h5: made with data.flips = [0.1], expected [0.2]; choose another name, or use the \
settings it was made with
    """
    one, other = _decisive(found), _decisive(wanted)
    for field in dict.fromkeys([*other, *one]):
        if field in but or one.get(field) == other.get(field):
            continue
        name, got, expected = _difference(field, one.get(field), other.get(field))
        does = remedy or "choose another name, or use the settings it was made with"
        raise InputError(f"{path}: made with {name} = {_shown(got)}, expected {_shown(expected)}; {does}")


def _decisive(provenance: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in provenance.items() if name not in _TOLD_ONLY}
    for name in _VERSIONS:
        if name in kept:
            kept[name] = ".".join(str(kept[name]).split(".")[:2])
    return {name: sorted(value) if isinstance(value, (tuple, list)) else value for name, value in kept.items()}


def _difference(field: str, found: Any, wanted: Any) -> tuple[str, Any, Any]:
    """The field, or the setting in it where both are TOML; with its two values."""
    try:
        one, other = (dict(_settings(tomllib.loads(text), field)) for text in (found, wanted))
    except (tomllib.TOMLDecodeError, TypeError, AttributeError):
        return field, found, wanted
    for name in dict.fromkeys([*other, *one]):
        if one.get(name) != other.get(name):
            return name, one.get(name), other.get(name)
    # The same settings in other words.
    return field, found, wanted


def _settings(table: Mapping[str, Any], path: str) -> "list[tuple[str, Any]]":
    found = list[tuple[str, Any]]()
    for name, value in table.items():
        at = f"{path}.{name}"
        found += _settings(value, at) if isinstance(value, Mapping) else [(at, value)]  # pyright: ignore
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = " ".join(str(value).split())
    digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return f"{text[:12]}…" if digest else text if len(text) <= 80 else f"{text[:80]}…"
