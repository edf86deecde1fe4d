"""Getting MNIST's four files from a public mirror, each checked and put in place whole."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from fishr.data.mnist import TEST_LABELS, TEST_PICTURES, mnist_files
from fishr.errors import InputError, RunFailed
from fishr.files import digest_of, fill_atomically, present

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# The sums that torchvision publishes for the same files.
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
# Of the same files, unpacked.
RAW_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
CHUNK = 1 << 20
SECONDS = 60


def fetch_url(url: str) -> Iterator[bytes]:
    """The bytes behind an address, a megabyte at a time.

    Args:
        url: address that ``urllib`` opens.

    Returns:
        Iterator of chunks; the connection closes with it.

    Raises:
        OSError: no connection, no answer within a minute, or no such file.

    Example:
        >>> b"".join(fetch_url("data:text/plain,digits"))
        b'digits'
    """
    from urllib.request import urlopen

    with urlopen(url, timeout=SECONDS) as answer:
        while chunk := answer.read(CHUNK):
            yield chunk


def download_mnist(data_dir: Path, fetch: Callable[[str], Iterable[bytes]] = fetch_url) -> tuple[Path, ...]:
    """Put MNIST's four .gz files into ``data_dir/MNIST/raw``, as torchvision lays them out.

    A file that is there and right is kept. A new one is written under a temporary name beside it, checked
    against its MD5 sum, and then moved into place, so that no half file ever bears the name.

    Args:
        data_dir: folder to fill; made when absent.
        fetch: from an address to its bytes.

    Returns:
        Paths of the four files.

    Raises:
        InputError: a file of that name is there but is not MNIST's, or the folder cannot be written.
        RunFailed: the network fails or sends other bytes than expected.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     download_mnist(Path(folder), fetch=lambda url: [b"not MNIST"])
        Traceback (most recent call last):
            ...
        fishr.errors.RunFailed: https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz: ...

    Source:
        MD5 sums: torchvision.datasets.MNIST.resources.
    """
    folder = data_dir / "MNIST" / "raw"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        missing = [name for name in MD5 if not _is_right(folder / name)]
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be used ({error.strerror or error}); give a folder you can write to"
        ) from None
    for name in missing:
        _download(MIRROR + name, folder / name, fetch)
    return tuple(folder / name for name in MD5)


def verify_mnist(data_dir: Path) -> tuple[Path, ...]:
    """Compare MNIST's four files, raw or .gz, with the sums of the published ones.

    Args:
        data_dir: folder with ``MNIST/raw/...``, or with the files themselves.

    Returns:
        Paths of the files.

    Raises:
        InputError: a file is missing, or is another one; the message has those that are.

    Example:
        >>> verify_mnist(Path("nowhere"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: MNIST: found no train-images-idx3-ubyte (or .gz) and no train-labels-...

    Source:
        MD5 sums of the .gz files: torchvision.datasets.MNIST.resources; of the raw ones: their contents.
    """
    files = (*mnist_files(data_dir), *mnist_files(data_dir, TEST_PICTURES, TEST_LABELS))
    sums = MD5 | RAW_MD5
    wrong = [path for path in files if digest_of(path, "md5") != sums[path.name]]
    if wrong:
        raise InputError(
            f"{', '.join(map(str, wrong))}: not MNIST's, by its MD5; move it away and fetch it again with "
            f"`fishr data download mnist --data-dir {data_dir}`"
        )
    return files


def _is_right(path: Path) -> bool:
    """Whether the file is there; one of other content is refused, not replaced."""
    if not present(path):
        return False
    got = digest_of(path, "md5")
    if got != MD5[path.name]:
        raise InputError(f"{path}: its MD5 is {got}, expected {MD5[path.name]}; move it away and try again")
    return True


def _download(url: str, path: Path, fetch: Callable[[str], Iterable[bytes]]) -> None:
    def fill(file: BinaryIO) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in _received(url, path, fetch):
            digest.update(chunk)
            file.write(chunk)
        if digest.hexdigest() != MD5[path.name]:
            raise RunFailed(
                f"{url}: what came has MD5 {digest.hexdigest()}, expected {MD5[path.name]}; {_by_hand(path)}"
            )

    fill_atomically(path, fill)


def _received(url: str, path: Path, fetch: Callable[[str], Iterable[bytes]]) -> Iterator[bytes]:
    """The bytes of ``fetch``; its failures are the network's, not the disk's."""
    try:
        yield from fetch(url)
    except (OSError, HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunFailed(f"{url}: not received ({reason}); {_by_hand(path)}") from None


def _by_hand(path: Path) -> str:
    return f"try again, or copy torchvision's MNIST/raw folder to {path.parent}"
