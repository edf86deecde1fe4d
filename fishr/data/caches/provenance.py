"""Provenance of a cache: its key, and the first field in which two differ."""

import json
import tomllib
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from fishr.errors import InputError

# Time and device change no row beyond rounding.
_INFORMATIVE = ("created", "device")
# The last part of a version is for bug fixes.
_VERSIONS = ("library", "torch")


def cache_key(provenance: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what decides the rows: not time, device, patch versions or the order of domains."""
    return sha256(json.dumps(_decisive(provenance), sort_keys=True).encode()).hexdigest()


def check_fit(
    path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], *, but: Collection[str] = (), remedy: str = ""
) -> None:
    """Refuse a cache whose provenance differs from the expected one, and name the first field that differs."""
    one, other = _decisive(found), _decisive(wanted)
    for field in dict.fromkeys([*other, *one]):
        if field in but or one.get(field) == other.get(field):
            continue
        name, got, expected = _difference(field, one.get(field), other.get(field))
        advice = remedy or "choose another name, or use the settings it was made with"
        raise InputError(f"{path}: made with {name} = {_shown(got)}, expected {_shown(expected)}; {advice}")


def _decisive(provenance: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in provenance.items() if name not in _INFORMATIVE}
    for name in _VERSIONS:
        if name in kept:
            kept[name] = ".".join(str(kept[name]).split(".")[:2])
    return {name: sorted(value) if isinstance(value, (tuple, list)) else value for name, value in kept.items()}


def _difference(field: str, found: Any, wanted: Any) -> tuple[str, Any, Any]:
    """Return the field, or the setting in it if both values are TOML, with its two values."""
    try:
        one, other = (by_dotted_name(tomllib.loads(text), f"{field}.") for text in (found, wanted))
    except (ValueError, RecursionError, TypeError, AttributeError):
        return field, found, wanted
    for name in dict.fromkeys([*other, *one]):
        if one.get(name) != other.get(name):
            return name, one.get(name), other.get(name)
    # The same settings, written differently.
    return field, found, wanted


def by_dotted_name(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return the values in nested tables by names such as ``optimizer.lr``."""
    flat = dict[str, Any]()
    for name, value in table.items():
        at = f"{before}{name}"
        flat |= by_dotted_name(value, f"{at}.") if isinstance(value, Mapping) else {at: value}
    return flat


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = " ".join(str(value).split())
    digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return f"{text[:12]}…" if digest else text if len(text) <= 80 else f"{text[:80]}…"
