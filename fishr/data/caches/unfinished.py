"""Work that takes long, in numbered parts: each a small file that is whole or absent, so that a kill loses one."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from fishr.data.caches.encoding import Tree, read_element, read_tree, write_tree
from fishr.data.caches.hdf5 import header_of, opened, sole_writer, write_whole
from fishr.errors import InputError, RunFailed
from fishr.files import remove_leftovers, whole_name

_PART = re.compile(r"[0-9]{6,}\.h5")


class Parts:
    """The parts of a file that is being made, in the folder ``<path>.parts`` beside it.

    Used as a context it keeps other processes away; ``existing`` looks at unfinished work without that.

    Args:
        path: of the file that the parts will make.
        kind: of that file.
        key: text that decides the content, such as the hash of its settings; parts of another key are refused.

    Raises:
        InputError: on entering, another process is at work, or the parts there have another key.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Parts(Path(folder, "a.h5"), "fishr-surface", "key") as parts:
        ...     parts.write(3, {"loss": 0.5})
        ...     parts.done, parts.read(3)
        ((3,), {'loss': 0.5})
    """

    def __init__(self, path: Path, kind: str, key: str) -> None:
        """Nothing is touched yet."""
        self._path, self._kind, self._key = path, kind, key
        self._folder = _folder(path)
        self._lock: AbstractContextManager[None] | None = None

    @staticmethod
    def existing(path: Path) -> "Parts | None":
        """The parts of a path, to be read while they may still grow; None where there are none."""
        files = _files(_folder(path))
        if not files:
            return None
        with opened(next(iter(files.values())), None) as file:
            kind, key = header_of(file).kind, read_element(file, "key")
        return Parts(path, kind, key)

    def __enter__(self) -> Self:
        """Lock the parts, and check that they are of this key."""
        lock = sole_writer(self._path)
        lock.__enter__()
        try:
            if self._folder.is_symlink():
                raise InputError(f"{self._folder}: is a link, expected a folder; remove it, or choose another name")
            for number in self.done[:1]:
                self.read(number)
        except BaseException:
            lock.__exit__(None, None, None)
            raise
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        """Let others have them."""
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock = None

    @property
    def done(self) -> tuple[int, ...]:
        """Numbers of the parts that are there, in their order."""
        return tuple(_files(self._folder))

    def write(self, index: int, tree: Mapping[str, Any]) -> None:
        """Write a part, whole or not at all; one of the same number gives way.

        Raises:
            RunFailed: it could not be written; what was there is kept.
        """
        content = {"key": self._key, "part": tree}
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunFailed(f"{self._folder}: could not be made ({error.strerror}); choose another place") from error
        write_whole(self._file(index), self._kind, 1, lambda file: write_tree(file, content))

    def read(self, index: int) -> Tree:
        """A part, every byte checked.

        Raises:
            InputError: it is missing, damaged, or of another key.
        """
        path = self._file(index)
        with opened(path, self._kind) as file:
            key = read_element(file, "key")
            if key != self._key:
                raise InputError(
                    f"{self._folder}: holds unfinished work with other settings; finish that with its own, "
                    "remove the folder, or choose another name"
                )
            return read_tree(file["part"])  # pyright: ignore[reportArgumentType]

    def remove(self) -> None:
        """Remove all parts, once the file they make stands.

        Raises:
            RunFailed: one could not be removed.
        """
        try:
            for path in _files(self._folder).values():
                path.unlink(missing_ok=True)
            if self._folder.exists():
                for name in {whole_name(path.name) for path in self._folder.iterdir()}:
                    if name and _PART.fullmatch(name):
                        remove_leftovers(self._folder / name)
                self._folder.rmdir()
        except OSError as error:
            raise RunFailed(f"{self._folder}: could not be removed ({error.strerror}); remove it by hand") from error

    def _file(self, index: int) -> Path:
        return self._folder / f"{index:06d}.h5"


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts")


def _files(folder: Path) -> dict[int, Path]:
    found = [path for path in folder.glob("*.h5") if _PART.fullmatch(path.name) and not path.is_symlink()]
    return {int(path.stem): path for path in sorted(found, key=lambda path: int(path.stem))}
