"""Reading MNIST's IDX files: big-endian header, then one byte a pixel or label; raw or gzip."""

import gzip
import struct
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fishr.errors import InputError

PICTURES_MAGIC = 2051
LABELS_MAGIC = 2049
SIDE = 28
# Pictures read at once: 3 MB, so that the whole file is never in memory.
CHUNK = 4096
ADVICE = "move it away and get it again"


def read_pictures(path: Path, every: int = 1) -> NDArray[np.uint8]:
    """Pictures of an IDX file, keeping every ``every``-th row and column of pixels.

    Args:
        path: raw file, or gzip when it ends in .gz.
        every: 1 keeps all 28x28 pixels, 2 keeps 14x14.

    Returns:
        [N, H, W] uint8 from 0 to 255.

    Raises:
        InputError: the file cannot be read, is no file of 28x28 pictures, or has another length than its
            header says.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "two")
        ...     _ = path.write_bytes(struct.pack(">4I", 2051, 2, 28, 28) + bytes(2 * 28 * 28))
        ...     read_pictures(path, every=2).shape
        (2, 14, 14)

    Source:
        Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits: file formats.
    """
    with _opened(path) as stream:
        count, height, width = _header(stream, path, PICTURES_MAGIC, 3, "pictures")
        if (height, width) != (SIDE, SIDE):
            raise InputError(f"{path}: pictures are {height}x{width}, expected {SIDE}x{SIDE} as in MNIST; {ADVICE}")
        # Chunks are collected rather than allocated from the header, whose count may be corrupt.
        kept = [
            np.frombuffer(chunk, np.uint8).reshape(-1, SIDE, SIDE)[:, ::every, ::every].copy()
            for chunk in _rows(stream, path, count, SIDE * SIDE)
        ]
    return np.concatenate(kept)


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Labels of an IDX file, digits from 0 to 9.

    Args:
        path: raw file, or gzip when it ends in .gz.

    Returns:
        [N] uint8.

    Raises:
        InputError: the file cannot be read, is no file of labels, has another length than its header says,
            or holds a number above 9.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "three.gz")
        ...     _ = path.write_bytes(gzip.compress(struct.pack(">2I", 2049, 3) + bytes([7, 0, 9]), mtime=0))
        ...     read_labels(path).tolist()
        [7, 0, 9]
    """
    with _opened(path) as stream:
        (count,) = _header(stream, path, LABELS_MAGIC, 1, "labels")
        labels = np.frombuffer(b"".join(_rows(stream, path, count, 1)), np.uint8)
    if labels.max() > 9:
        raise InputError(f"{path}: got label {labels.max()}, expected digits from 0 to 9; {ADVICE}")
    return labels


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    """The file's bytes, decompressed; what goes wrong while reading them becomes one line."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            yield stream  # pyright: ignore[reportReturnType]  (GzipFile reads like a BinaryIO)
    except EOFError:
        raise InputError(f"{path}: truncated, the compressed data ends early; {ADVICE}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file ({error}); {ADVICE}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None


def _header(stream: BinaryIO, path: Path, magic: int, numbers: int, what: str) -> tuple[int, ...]:
    raw = stream.read(4 * (1 + numbers))
    if len(raw) < 4 * (1 + numbers):
        raise InputError(f"{path}: truncated, {len(raw)} bytes are less than an MNIST header; {ADVICE}")
    got, *sizes = struct.unpack(f">{1 + numbers}I", raw)
    if got != magic:
        raise InputError(f"{path}: magic number is {got}, expected {magic} for MNIST {what}; {ADVICE}")
    if sizes[0] == 0:
        raise InputError(f"{path}: its header says 0 {what}, expected at least one; {ADVICE}")
    return tuple(sizes)


def _rows(stream: BinaryIO, path: Path, count: int, width: int) -> Iterator[bytes]:
    """Exactly ``count`` rows of ``width`` bytes, in chunks; another length is refused."""
    remaining = count * width
    while remaining:
        chunk = stream.read(min(remaining, CHUNK * width))
        remaining -= len(chunk)
        if not chunk or len(chunk) % width:
            got = count * width - remaining
            raise InputError(f"{path}: truncated, got {got} bytes after the header, expected {count * width}; {ADVICE}")
        yield chunk
    if stream.read(1):
        raise InputError(f"{path}: longer than the {count * width} bytes that its header says; {ADVICE}")
