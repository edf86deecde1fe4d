"""Weights from local files; nothing is downloaded."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from fishr.errors import InputError, reason
from fishr.files import digest_of

_HASH = re.compile(r"-([0-9a-f]{8,})\.")


def hub_file(url: str, fetch: str, otherwise: str) -> Path:
    """Return the file of a URL in torch.hub's folder, checked against the SHA-256 prefix in its name."""
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
        raise InputError(f"{path}: cannot be read ({reason(error)}); make it readable") from error
    if expected and not got.startswith(expected[1]):
        raise InputError(
            f"{path}: cut short or damaged: its SHA-256 begins with {got[: len(expected[1])]}, expected {expected[1]}; "
            f"remove it, and on a machine with a network type: {fetch}"
        )
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a .pth or .safetensors file, on the CPU; nothing in the file is executed."""
    if not path.is_file():
        raise InputError(f"weights: {path}: no such file; give the path of a state dict")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tree: object = load_file(path)
        else:
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises errors of many kinds on foreign bytes
        raise InputError(
            f"weights: {path}: not a readable state dict (cut short, or of something else); "
            "save one with torch.save(module.state_dict(), path)"
        ) from error
    plain = isinstance(tree, dict) and all(isinstance(one, Tensor) for one in cast(dict[object, object], tree).values())
    if not plain or not tree:
        raise InputError(
            f"weights: {path}: expected a dict of tensors by name; save one with torch.save(module.state_dict(), path)"
        )
    return cast(dict[str, Tensor], tree)


def load_weights(module: nn.Module, given: Mapping[str, Tensor], source: str, remedy: str) -> None:
    """Load tensors, which may lack counters of batches, into a module; if one does not fit, change nothing."""
    own = module.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    for name, got, expected in misfits(own, {**counters, **given}):
        raise InputError(f"{source} has shape {got} for {name}, expected {expected}; {remedy}")
    module.load_state_dict({**counters, **given})


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[tuple[str, object, object]]:
    """Yield each name whose shapes differ, with the given shape and the own one; "none" where a name is absent."""
    for name in dict.fromkeys([*own, *given]):
        got, expected = (tuple(part[name].shape) if name in part else "none" for part in (given, own))
        if got != expected:
            yield name, got, expected
