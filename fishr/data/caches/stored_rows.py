"""Rows of one column of a file, read one by one in any thread."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py

from fishr.data.caches.domain_rows import read_columns
from fishr.data.caches.encoding import Array, entry, read_element
from fishr.data.caches.hdf5 import UNREADABLE, opened
from fishr.errors import InputError


class StoredRows:
    """Rows of a domain's column, in a file that is opened once; a pickled or forked copy opens it again."""

    def __init__(self, path: Path, kind: str, key: str, domain: int, column: str) -> None:
        self._path, self._kind, self._key, self._domain, self._column = path, kind, key, domain, column
        # Process, what keeps the file open, and the rows.
        self._open: tuple[int, ExitStack, h5py.Dataset] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredRows, (self._path, self._kind, self._key, self._domain, self._column)

    def read(self, index: int) -> Array:
        """Return one row, of the type and shape that are stored."""
        # A local name, as another thread may close the file.
        current = self._open
        if current is None or current[0] != os.getpid():
            current = self._open = self._opened()
        try:
            return current[2][index]
        except UNREADABLE:
            # The slow way names what is wrong with the file.
            self._open = None
            columns = (self._column,)
            rows = read_columns(self._path, self._kind, self._key, self._domain, columns, index, index + 1)
            return rows[self._column][0]

    def _opened(self) -> tuple[int, ExitStack, h5py.Dataset]:
        with ExitStack() as stack:
            file = stack.enter_context(opened(self._path, self._kind))
            if read_element(file, "key") != self._key:
                raise InputError(f"{self._path}: is another file than was opened (its key has changed); open it again")
            rows = entry(entry(entry(file, "domains"), str(self._domain)), self._column)
            return os.getpid(), stack.pop_all(), rows
