"""Names of parametrized tests that are the same in every process, as parallel test runs need."""

import re


def stable_name(value: object) -> str:
    """Return the start of a value's text, without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))[:60]
