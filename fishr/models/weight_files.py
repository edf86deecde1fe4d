"""Weights from files on this machine; nothing is ever downloaded."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.files import digest_of

_HASH = re.compile(r"-([0-9a-f]{8,})\.")


def hub_file(url: str, fetch: str, otherwise: str) -> Path:
    """The file that torch.hub keeps of a URL, checked against the SHA-256 prefix in its name.

    Args:
        url: where it was published; only its last part is used.
        fetch: the line that fetches it on a machine with a network.
        otherwise: what a person without one can do.

    Returns:
        Its path in torch.hub's folder, which the variable TORCH_HOME decides.

    Raises:
        InputError: it is not there, or not what its name says.

    Example:
        >>> hub_file("https://example.org/tiny-0123abcd.pth", "make tiny", "use none")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: weights: no tiny-0123abcd.pth in ...; on a machine with a network type: make tiny; \
or use none
    """
    name = url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    if not path.is_file():
        raise InputError(
            f"weights: no {name} in {path.parent}; on a machine with a network type: {fetch}; or {otherwise}"
        )
    expected = _HASH.search(name)
    try:
        got = digest_of(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    if expected and not got.startswith(expected[1]):
        raise InputError(
            f"{path}: cut short or damaged: its SHA-256 begins with {got[: len(expected[1])]}, expected {expected[1]}; "
            f"remove it, and on a machine with a network type: {fetch}"
        )
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict that a file holds; nothing in it is executed.

    Args:
        path: of what ``torch.save(module.state_dict(), path)`` wrote, or of a .safetensors file.

    Returns:
        Tensors on the CPU by name, at least one.

    Raises:
        InputError: no such file, or one that holds something else.

    Example:
        >>> read_weights(Path("nowhere.pth"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: weights: nowhere.pth: no such file; give the path of a state dict
    """
    if not path.is_file():
        raise InputError(f"weights: {path}: no such file; give the path of a state dict")
    try:
        tree = _read(path)
    except ImportError:
        raise InputError(f"weights: {path}: safetensors is not installed; pip install safetensors") from None
    except Exception as error:  # torch raises whatever its parts raise on bytes that are not its own
        raise InputError(
            f"weights: {path}: not a readable state dict (cut short, or of something else); "
            "save one with torch.save(module.state_dict(), path)"
        ) from error
    plain = isinstance(tree, dict) and all(
        isinstance(value, Tensor) for value in cast(dict[object, object], tree).values()
    )
    if not plain or not tree:
        raise InputError(
            f"weights: {path}: expected a dict of tensors by name; save one with torch.save(module.state_dict(), path)"
        )
    return cast(dict[str, Tensor], tree)


def load_weights(module: nn.Module, given: Mapping[str, Tensor], source: object) -> None:
    """Put given tensors into a module, all of them and nothing else.

    Args:
        module: changed in place.
        given: tensors by name, as ``state_dict()`` has them; counters of batches may be absent, as in old files.
        source: where they are from, for the message.

    Raises:
        InputError: a name or a shape does not fit; the first such one is named, and nothing is changed.

    Example:
        >>> load_weights(nn.Linear(3, 2), {"weight": torch.ones(2, 4), "bias": torch.ones(2)}, "mine.pth")
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: weights: mine.pth has shape (2, 4) for weight, expected (2, 3); give those of the \
same network
    """
    own = module.state_dict()
    for name in dict.fromkeys([*own, *given]):
        if name not in given and name.endswith("num_batches_tracked"):
            continue
        got, expected = (tuple(part[name].shape) if name in part else "none" for part in (given, own))
        if got != expected:
            raise InputError(
                f"weights: {source} has shape {got} for {name}, expected {expected}; give those of the same network"
            )
    module.load_state_dict({**own, **given})


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
