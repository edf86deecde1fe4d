"""Weights from local files; nothing is downloaded."""

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fishr.errors import InputError, reason
from fishr.files import digest_of

Match = Literal["order"]
_HASH = re.compile(r"-([0-9a-f]{8,})\.")
_COUNTER = "num_batches_tracked"
# Keys of training programs' checkpoints around a state dict, and what wrappers put before its names.
_NESTS = ("state_dict", "model")
_PREFIXES = ("module.", "model.", "backbone.")
# Last parts of names that two libraries mean alike.
_ROLES = {"weight", "bias", "running_mean", "running_var"}


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
    """Return the state dict of a .pth, .pt or .safetensors file, on the CPU; nothing in the file is executed."""
    if not path.is_file():
        where = "" if path.is_absolute() else f" in the working directory, {Path.cwd()}"
        raise InputError(
            f"weights: {path}: no such file{where}; give the path of a state dict, or for random weights "
            'weights = "random" (ResNet) or pretrained = false (TimmBackbone)'
        )
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
    tree = next((tree[key] for key in _NESTS if isinstance(tree, dict) and isinstance(tree.get(key), dict)), tree)
    plain = isinstance(tree, dict) and all(isinstance(one, Tensor) for one in cast(dict[object, object], tree).values())
    if not plain or not tree:
        raise InputError(
            f"weights: {path}: expected a dict of tensors by name; save one with torch.save(module.state_dict(), path)"
        )
    return cast(dict[str, Tensor], tree)


def weights_for(
    network: Mapping[str, Tensor], classifier: Collection[str], path: Path, match: Match | None
) -> dict[str, Tensor]:
    """Return the tensors of a file under the names of a network, without its classifier."""
    given = read_weights(path)
    named = _in_order(network, classifier, given, path) if match == "order" else _without_prefixes(network, given)
    return {name: tensor for name, tensor in named.items() if name not in classifier}


def _without_prefixes(network: Collection[str], given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors under a wrapper's prefix, where there are some, without it."""
    while prefix := next((one for one in _PREFIXES if _some(given, one) and not _some(network, one)), None):
        given = {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}
    return given


def _some(names: Collection[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _in_order(
    network: Mapping[str, Tensor], classifier: Collection[str], given: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Return tensors under the names of the network's at the same places; counters of batches have none."""
    theirs, own = ([name for name in part if not name.endswith(_COUNTER)] for part in (given, network))
    bare = [name for name in own if name not in classifier]
    if len(theirs) not in (len(own), len(bare)):
        raise InputError(
            f"weights: {path} has {len(theirs)} tensors, expected the {len(bare)} of the network or {len(own)} with "
            "its classifier, in the same order; give the same network's"
        )
    pairs = list(zip(theirs, own if len(theirs) == len(own) else bare, strict=True))
    for number, (name, ours) in enumerate(pairs, 1):
        # A classifier may have any number of classes.
        got, expected = (tuple(part.shape)[ours in classifier :] for part in (given[name], network[ours]))
        roles = {name.rpartition(".")[2], ours.rpartition(".")[2]}
        if got != expected or (len(roles) == 2 and roles <= _ROLES):
            raise InputError(
                f"weights: {path}: tensor {number} is {name} of shape {got}, in the network {ours} of shape "
                f"{expected}; give a file in the network's order, or match by name"
            )
    (first, second), (third, last) = pairs[0], pairs[-1]
    warnings.warn(
        f"weights: {path}: {len(pairs)} tensors are matched by order, not by name: {first} to {second}, …, {third} to "
        f"{last}; the shapes agree, which does not prove that the network is the same",
        stacklevel=2,
    )
    return {ours: given[name] for name, ours in pairs}


def weights_digest(module: nn.Module, prefix: str = "featurizer") -> str:
    """Return the SHA-256 over names, types, shapes and bytes of parameters and buffers, sorted by name."""
    digest = sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().contiguous().numpy(force=True)
        digest.update(f"{prefix}.{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def load_weights(module: nn.Module, given: Mapping[str, Tensor], source: str, remedy: str) -> None:
    """Load tensors, which may lack counters of batches, into a module; if one does not fit, change nothing."""
    own = module.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith(_COUNTER)}
    for name, got, expected in misfits(own, {**counters, **given}):
        raise InputError(f"{source} has shape {got} for {name}, expected {expected}; {remedy}")
    module.load_state_dict({**counters, **given})


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[tuple[str, object, object]]:
    """Yield each name whose shapes differ, with the given shape and the own one; "none" where a name is absent."""
    theirs, ours = ({name: tensor.shape for name, tensor in part.items()} for part in (given, own))
    # Together first: each step asks.
    for name in dict.fromkeys([*ours, *theirs]) if theirs != ours else ():
        got, expected = (tuple(part[name]) if name in part else "none" for part in (theirs, ours))
        if got != expected:
            yield name, got, expected
