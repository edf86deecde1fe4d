"""Which of a source's domains are looked at."""

from pathlib import Path
from typing import Literal

from fishr.errors import InputError

Names = Literal["all"] | tuple[str, ...]


def chosen(names: list[str], wanted: Names, path: Path) -> list[int]:
    """Indices of the wanted domains, in the order in which they are there.

    Args:
        names: of the domains that are there.
        wanted: "all", or some of them.
        path: of the source, for the error.

    Raises:
        InputError: one of the wanted is not there, or none is wanted.

    Example:
        >>> chosen(["photo", "sketch"], ("sketch",), Path("run"))
        [1]
    """
    if wanted == "all":
        return list(range(len(names)))
    for name in wanted:
        if name not in names:
            raise InputError(f"{path}: got domain {name!r}, expected some of: {', '.join(names)}")
    if not wanted:
        raise InputError(f"{path}: got no domain, expected some of: {', '.join(names)}")
    return [index for index, name in enumerate(names) if name in wanted]
