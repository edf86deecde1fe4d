"""Rows of one column of a file, read one by one in any thread."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from weakref import finalize

import h5py
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from fishr.data.caches.domain_rows import read_columns
from fishr.data.caches.encoding import Array, entry, read_element
from fishr.data.caches.hdf5 import UNREADABLE, opened
from fishr.errors import InputError

_CHECKSUM_BYTES = 4


@frozen(eq=False)
class _Rows:
    """Rows of an open file, and where those that were read before are in it."""

    process: int
    rows: h5py.Dataset
    handle: int
    like: Array
    places: NDArray[np.int64]  # 0: not read yet

    def read(self, index: int) -> Array:
        if place := int(self.places[index]):
            # h5py checked these bytes before; it would keep all threads waiting.
            row = np.empty_like(self.like)
            if os.preadv(self.handle, [row.data], place) == row.nbytes:
                return row
        row = self.rows[index]
        if self.rows.chunks == (1, *row.shape) and hasattr(os, "preadv"):
            chunk = self.rows.id.get_chunk_info_by_coord((index, *[0] * row.ndim))
            if chunk.size == row.nbytes + _CHECKSUM_BYTES:
                self.places[index] = chunk.byte_offset
        return row


class StoredRows:
    """Rows of a domain's column, in a file that is opened once; a pickled or forked copy opens it again."""

    def __init__(self, path: Path, kind: str, key: str, domain: int, column: str) -> None:
        self._path, self._kind, self._key, self._domain, self._column = path, kind, key, domain, column
        self._open: _Rows | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredRows, (self._path, self._kind, self._key, self._domain, self._column)

    def read(self, index: int) -> Array:
        """Return one row, of the type and shape that are stored."""
        # A local name, as another thread may forget the file.
        current = self._open
        if current is None or current.process != os.getpid():
            current = self._open = self._opened()
        try:
            return current.read(index)
        except UNREADABLE:
            # The slow way names what is wrong with the file.
            self._open = None
            columns = (self._column,)
            rows = read_columns(self._path, self._kind, self._key, self._domain, columns, index, index + 1)
            return rows[self._column][0]

    def _opened(self) -> _Rows:
        with ExitStack() as stack:
            file = stack.enter_context(opened(self._path, self._kind))
            if read_element(file, "key") != self._key:
                raise InputError(f"{self._path}: is another file than was opened (its key has changed); open it again")
            rows = entry(entry(entry(file, "domains"), str(self._domain)), self._column)
            like, places = np.empty(rows.shape[1:], rows.dtype), np.zeros(len(rows), np.int64)
            # Also before an interpreter that ends forgets what closes the file.
            finalize(self, stack.pop_all().close)
            return _Rows(os.getpid(), rows, file.id.get_vfd_handle(), like, places)
