"""SHA-256 sums of archives, in the form that ``sha256sum --check`` reads."""

import re
from pathlib import Path

from fishr.errors import InputError, RunFailed
from fishr.files import digest_of, write_atomically
from fishr.locks import beside, locked

NAME = "SHA256SUMS"


def read_sums(folder: Path) -> dict[str, str]:
    """Return the sums in a folder's SHA256SUMS by file name, none if there is no such file."""
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
    """Compare a file's sum with the one recorded for a name, record it if it is the first, and return it."""
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
            f"{file}: its SHA-256 is {got}, expected {expected} as {where} records; remove the file to download it "
            "again, or the line to accept it"
        )
    return got
