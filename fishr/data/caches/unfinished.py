"""Unfinished files in numbered parts: each a small file that is whole or absent, so that a kill loses one."""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from fishr.data.caches.encoding import Tree, read_element, write_tree
from fishr.data.caches.hdf5 import header_of, opened, sole_writer, write_whole
from fishr.errors import InputError, RunFailed, reason
from fishr.files import whole_name

_PART = re.compile(r"[0-9]{6,}\.h5")


class Parts:
    """Parts of an unfinished file, in the folder ``<path>.parts``; as a context it locks out other processes."""

    def __init__(self, path: Path, kind: str, key: str) -> None:
        self._path, self._kind, self._key = path, kind, key
        self._folder = _folder(path)
        self._lock = ExitStack()

    @staticmethod
    def existing(path: Path) -> "Parts | None":
        """Return the parts of a path, which may still grow; None if there are none."""
        files = _files(_folder(path))
        if not files:
            return None
        with opened(next(iter(files.values())), None) as file:
            return Parts(path, header_of(file).kind, read_element(file, "key"))

    def __enter__(self) -> Self:
        """Lock the parts, and check that they have this key."""
        with ExitStack() as stack:
            stack.enter_context(sole_writer(self._path))
            if self._folder.is_symlink():
                raise InputError(f"{self._folder}: is a link, expected a folder; remove it, or choose another name")
            for number in self.done[:1]:
                self.read(number)
            self._lock = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._lock.close()

    @property
    def done(self) -> tuple[int, ...]:
        """Numbers of the existing parts, ascending."""
        return tuple(_files(self._folder))

    def write(self, index: int, tree: Mapping[str, Any]) -> None:
        """Write a part, whole or not at all; it replaces one of the same number."""
        content = {"key": self._key, "part": tree}
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunFailed(f"{self._folder}: could not be made ({reason(error)}); choose another place") from error
        write_whole(self._file(index), self._kind, lambda file: write_tree(file, content))

    def read(self, index: int) -> Tree:
        """Return a part, every byte checked."""
        with opened(self._file(index), self._kind) as file:
            if read_element(file, "key") != self._key:
                raise InputError(
                    f"{self._folder}: holds unfinished work with other settings; finish that with its own, "
                    "remove the folder, or choose another name"
                )
            return read_element(file, "part")

    def remove(self) -> None:
        """Remove all parts, after the whole file is written."""
        try:
            if self._folder.exists():
                for path in self._folder.iterdir():
                    # What killed writers left of a part goes with the parts.
                    if _PART.fullmatch(whole_name(path.name) or path.name) and not path.is_symlink():
                        path.unlink(missing_ok=True)
                self._folder.rmdir()
        except OSError as error:
            raise RunFailed(f"{self._folder}: could not be removed ({reason(error)}); remove it by hand") from error

    def _file(self, index: int) -> Path:
        return self._folder / f"{index:06d}.h5"


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts")


def _files(folder: Path) -> dict[int, Path]:
    found = [path for path in folder.glob("*.h5") if _PART.fullmatch(path.name) and not path.is_symlink()]
    return {int(path.stem): path for path in sorted(found, key=lambda path: int(path.stem))}
