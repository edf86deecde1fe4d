"""Checks of one line of results.jsonl, which may come from anywhere: an error names the file, line and value."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fishr.errors import InputError

_ACCURACY = re.compile(r"(env[0-9]+_(?:in|out))_acc")


def check_counts(counts: Mapping[str, int], where: str) -> None:
    """Refuse counts below 0; ``where`` is the file and line for the message, here and below."""
    for name, value in counts.items():
        if isinstance(value, bool) or value < 0:
            raise InputError(f"{where}: {name}: got {value}, expected a whole number of 0 or more; run the job again")


def check_shapes(hparams: Any, protocol: Any, own: Any, where: str) -> None:
    """Refuse settings of another type than a record has."""
    match hparams, protocol, own:
        case dict(), str() | None, dict() if all(map(_has_environments, own.values())):
            return
        case _:
            raise InputError(
                f"{where}: expected a table in hparams, a text in args.protocol and tables with a list of environments "
                "in args.own; run the job again"
            )


def _has_environments(own: Any) -> bool:
    match own:
        case {"environments": [*names]}:
            return all(isinstance(name, str) for name in names)
        case _:
            return False


def accuracies_of(entry: Mapping[str, Any], test_envs: Sequence[int], where: str) -> dict[str, float]:
    """Return the accuracies of all environments, "env0_in" first, or refuse them."""
    found = {match[1]: entry[match[0]] for name in entry if (match := _ACCURACY.fullmatch(name))}
    # Of as many environments as there are pairs of entries: an index beyond them must not decide how many are made.
    count = max(2, (len(found) + 1) // 2)
    names = [f"env{index}_{split}" for index in range(count) for split in ("in", "out")]
    expected = set(names)
    if found.keys() != expected:
        lacking = next((f"{name}_acc" for name in names if name not in found), "nothing")
        beyond = [f"{name[:40]}_acc" for name in found if name not in expected]
        raise InputError(
            f"{where}: lacks {lacking}{f' and has {beyond[0]}' if beyond else ''}, expected an accuracy of the in and "
            "the out split of each of two or more environments, numbered from 0; run the job again"
        )
    for name in names:
        value = found[name]
        # NaN is in no range, and True is no number.
        if type(value) not in (int, float) or not 0 <= value <= 1:
            got = type(value).__name__ if isinstance(value, list | dict) else json.dumps(value)[:40]
            raise InputError(f"{where}: {name}_acc: got {got}, expected a number from 0 to 1; run the job again")
    if not test_envs or not 0 <= test_envs[0] <= test_envs[-1] < count:
        raise InputError(f"{where}: got test_envs {list(test_envs)}, expected some of 0 to {count - 1}")
    if len(set(test_envs)) < len(test_envs):
        raise InputError(f"{where}: got test_envs {list(test_envs)}, expected each once")
    return {name: float(found[name]) for name in names}
