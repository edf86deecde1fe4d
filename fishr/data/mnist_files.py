"""MNIST's four IDX files, raw or gzip: find, read, download and verify them."""

import gzip
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fishr.errors import InputError, RunFailed, reason
from fishr.files import digest_of, present

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
ALL = (IMAGES, LABELS, TEST_IMAGES, TEST_LABELS)
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# Those of torchvision, in its order.
MIRRORS = (MIRROR, "http://yann.lecun.com/exdb/mnist/")
# The sums that torchvision publishes for the same files.
MD5 = {
    f"{IMAGES}.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    f"{LABELS}.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    f"{TEST_IMAGES}.gz": "9fb629c4189551a2d022fa330f9573f3",
    f"{TEST_LABELS}.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
# Of the unpacked files.
RAW_MD5 = {
    IMAGES: "6bbc9ace898e44ae57da46a324031adb",
    LABELS: "a25bea736e30d166cdddb491f175f624",
    TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
    TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
}
_SIDE = 28
_ADVICE = "move it away and download it again"


def find_mnist(data_dir: Path, names: Sequence[str] = (IMAGES, LABELS)) -> list[Path]:
    """Return the paths of files, in ``data_dir/MNIST/raw`` or in ``data_dir``, raw or .gz."""
    raw = data_dir / "MNIST" / "raw"
    places = [[place / (name + end) for place in (raw, data_dir) for end in ("", ".gz")] for name in names]
    found = [next((path for path in paths if path.is_file()), None) for paths in places]
    missing = [f"no {name} (or .gz)" for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        raise InputError(
            f"MNIST: found {' and '.join(missing)} in {raw} or in {data_dir}; run `fishr data download mnist "
            f"--data-dir {data_dir}`, or copy torchvision's MNIST/raw folder to {raw}"
        )
    return [path for path in found if path is not None]


def read_mnist(files: Sequence[Path], every: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images [N, H, W], keeping every ``every``-th row and column of pixels, and labels [N] from 0 to 9."""
    images_file, labels_file = files
    labels = read_labels(labels_file)
    images = read_images(images_file, every)
    if len(images) != len(labels):
        raise InputError(
            f"{images_file}: {len(images)} images but {len(labels)} labels in {labels_file}; expected one data set"
        )
    return images, labels


def read_images(path: Path, every: int = 1) -> NDArray[np.uint8]:
    """Return the images [N, H, W] of an IDX file, keeping every ``every``-th row and column of pixels."""
    return _read_idx(path, 2051, "images", (_SIDE, _SIDE))[:, ::every, ::every].copy()


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Return the labels [N] of an IDX file, digits from 0 to 9."""
    labels = _read_idx(path, 2049, "labels", ())
    if labels.max() > 9:
        raise InputError(f"{path}: got label {labels.max()}, expected digits from 0 to 9; {_ADVICE}")
    return labels.copy()


def _read_idx(path: Path, magic: int, what: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a file of the IDX format: a big-endian header, then one byte for each pixel or label."""
    content, header = _content(path), 4 * (2 + len(shape))
    if len(content) < header:
        raise InputError(f"{path}: truncated, {len(content)} bytes are less than an MNIST header; {_ADVICE}")
    got, count, *sizes = struct.unpack_from(f">{2 + len(shape)}I", content)
    if got != magic:
        raise InputError(f"{path}: magic number is {got}, expected {magic} for MNIST {what}; {_ADVICE}")
    if count == 0:
        raise InputError(f"{path}: its header says 0 {what}, expected at least one; {_ADVICE}")
    if tuple(sizes) != shape:
        got, expected = "x".join(map(str, sizes)), "x".join(map(str, shape))
        raise InputError(f"{path}: {what} are {got}, expected {expected} as in MNIST; {_ADVICE}")
    size, expected = len(content) - header, count * int(np.prod(shape))
    if size < expected:
        raise InputError(f"{path}: truncated, got {size} bytes after the header, expected {expected}; {_ADVICE}")
    if size > expected:
        raise InputError(f"{path}: longer than the {expected} bytes that its header says; {_ADVICE}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(count, *shape)


def _content(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return stream.read()
    except EOFError:
        raise InputError(f"{path}: truncated, the compressed data ends early; {_ADVICE}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file ({error}); {_ADVICE}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); check the file") from None


def download_mnist(
    data_dir: Path,
    report: Callable[[str], object] = lambda line: None,
    progress: Callable[[str, int, int | None], object] = lambda name, done, total: None,
) -> tuple[Path, ...]:
    """Download MNIST's four .gz files to ``data_dir/MNIST/raw``, the layout of torchvision.

    A correct file that exists is kept. A new one is written under another name, resumed after an interruption, checked
    against its MD5 sum, and then renamed. If the first of torchvision's mirrors fails, the second is tried; ``report``
    is called with a line on each, and ``progress`` with a file's name, the bytes received, and of all if known.

    Raises:
        InputError: A file of that name exists but is not MNIST's, or the folder cannot be written.
        RunFailed: The network fails or sends other bytes than expected, from each mirror.

    Source:
        Mirrors and MD5 sums: torchvision.datasets.MNIST.mirrors and .resources.
    """
    from fishr.data.sources.downloading import download, from_first

    folder = data_dir / "MNIST" / "raw"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {name: digest_of(folder / name, "md5") for name in MD5 if present(folder / name)}
    except OSError as error:
        raise InputError(f"{folder}: cannot be used ({reason(error)}); give a folder you can write to") from None
    for name, got in found.items():
        if got != MD5[name]:
            raise InputError(f"{folder / name}: its MD5 is {got}, expected {MD5[name]}; move it away and try again")
    by_hand = f"copy torchvision's MNIST/raw folder to {folder}"

    def check(mirror: str, part: Path) -> None:
        name = part.name.removesuffix(".fishr-part")
        got = digest_of(part, "md5")
        if got != MD5[name]:
            part.unlink()
            raise RunFailed(f"{mirror}{name}: the download has MD5 {got}, expected {MD5[name]}; retry, or {by_hand}")

    for name in MD5:
        if name not in found:
            path = folder / name

            def get(mirror: str, path: Path = path) -> None:
                download(mirror + path.name, path, partial(check, mirror), progress, otherwise=by_hand)

            from_first(MIRRORS, get, lambda line, name=name: report(f"{name}: {line}"))
    return tuple(folder / name for name in MD5)


def verify_mnist(data_dir: Path) -> tuple[Path, ...]:
    """Compare MNIST's four files, raw or .gz, with the published MD5 sums, and return their paths."""
    files = tuple(find_mnist(data_dir, ALL))
    sums = MD5 | RAW_MD5
    wrong = [path for path in files if digest_of(path, "md5") != sums[path.name]]
    if wrong:
        raise InputError(
            f"{', '.join(map(str, wrong))}: not MNIST's, by its MD5; move it away and download it again with "
            f"`fishr data download mnist --data-dir {data_dir}`"
        )
    return files
