"""SHA-256 sums of the archives that came, in the form that ``sha256sum --check`` reads."""

import re
from pathlib import Path

from fishr.errors import InputError, RunFailed
from fishr.files import digest_of, write_atomically
from fishr.locks import beside, locked

NAME = "SHA256SUMS"


def read_sums(folder: Path) -> dict[str, str]:
    """The sums that a folder's SHA256SUMS records, by file name.

    Args:
        folder: where the archives lie.

    Returns:
        Empty where nothing is recorded.

    Raises:
        InputError: a line has another form.

    Example:
        >>> read_sums(Path("no-such-folder"))
        {}
    """
    path = folder / NAME
    if not path.exists():
        return {}
    found = dict[str, str]()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        parts = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if parts is None:
            raise InputError(f"{path}: line {number} is not a SHA-256 sum and a file name; mend or remove it")
        found[parts[2]] = parts[1]
    return found


def check_and_record(file: Path, name: str) -> str:
    """Compare a file with the sum recorded for it; the first one of its name is recorded.

    Args:
        file: in the folder of SHA256SUMS.
        name: under which it is recorded.

    Returns:
        Its sum.

    Raises:
        RunFailed: another sum is recorded, or it cannot be recorded.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.zip")
        ...     file.touch()
        ...     found = check_and_record(file, "a.zip")
        ...     file.write_text("other")
        ...     check_and_record(file, "a.zip")
        Traceback (most recent call last):
            ...
        fishr.errors.RunFailed: ...a.zip: its SHA-256 is d9298a10..., expected e3b0c442... as ...
    """
    got = digest_of(file)
    where = file.parent / NAME
    with locked(beside(where), where, "another process is writing it; try again"):
        recorded = read_sums(file.parent)
        expected = recorded.get(name, got)
        if name not in recorded:
            lines = [f"{digest}  {each}\n" for each, digest in sorted({**recorded, name: got}.items())]
            write_atomically(where, "".join(lines).encode())
    if got != expected:
        raise RunFailed(
            f"{file}: its SHA-256 is {got}, expected {expected} as {where} records; remove the file to fetch it "
            "again, or the line to take it as it is"
        )
    return got
