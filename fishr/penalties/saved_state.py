"""The state of a penalty in a file of one's own: plain containers, checked when they are read back."""

import json
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from fishr.errors import InputError
from fishr.penalties.penalty import Penalty
from fishr.row_checks import kind
from fishr.tensor_trees import each_tensor, plain, require_tree, restored
from fishr.types import Problem

FORMAT, VERSION = "fishr penalty state", 1
_OUTLINE = "outline"
_FIX = "load it by the penalty and the problem (head, domains, dtype) that it was saved from"


def state_dict(state: Any, flat: bool = False) -> dict[str, Any]:
    """Return a penalty's state as plain tensors, numbers, strings, dicts and tuples, for any checkpoint.

    ``torch.load`` reads it by its defaults, and so do Lightning, Accelerate and ``torch.distributed.checkpoint``.
    Records become dicts of their fields. Tensors are on the CPU; those that are there already share their memory.

    Args:
        state: what a penalty's ``init`` or call returned.
        flat: return tensors alone, by name, as safetensors takes them; the rest is JSON in one of them.

    Raises:
        InputError: a state that is no tree of tensors without a graph, numbers, strings, None, tuples, lists, dicts
            with string keys and attrs records.

    Example:
        >>> from fishr.penalties.fishr import Fishr
        >>> penalty, problem = Fishr(ema=0.9), Problem.of(torch.nn.Linear(3, 2), domains=2)
        >>> saved = state_dict(penalty.init(problem))
        >>> saved["version"], saved["state"]["value"].shape, saved["state"]["updates"]
        (1, torch.Size([2, 8]), 0)
        >>> sorted(state_dict(penalty.init(problem), flat=True))
        ['outline', 'state.value']
    """
    require_tree(state, "state")
    saved = {"format": FORMAT, "version": VERSION, "state": plain(state)}
    if not flat:
        return saved
    tensors = dict[str, Tensor]()
    text = json.dumps(_outlined(saved, "", tensors)).encode()
    return {_OUTLINE: torch.tensor(list(text), dtype=torch.uint8), **tensors}


def load_state(penalty: Penalty, problem: Problem, saved: Mapping[str, Any]) -> Any:
    """Return a penalty's state from what ``state_dict`` returned, flat or not, on the problem's device.

    The state has the types of ``penalty.init(problem)``: records are records again. Where that has None or an empty
    list or dict, which the penalty fills later, anything is accepted.

    Args:
        penalty: of the same configuration as the one whose state was saved.
        problem: as for ``penalty.init``.
        saved: what ``state_dict`` returned, from a file.

    Raises:
        InputError: no saved state, one of another version, or one that does not fit: a missing or unknown entry, a
            tensor of another shape or type, another kind of value. The message names the entry.

    Example:
        >>> from fishr.penalties.fishr import Fishr
        >>> penalty, problem = Fishr(ema=0.9), Problem.of(torch.nn.Linear(3, 2), domains=2)
        >>> load_state(penalty, problem, state_dict(penalty.init(problem))).updates
        0
        >>> load_state(penalty, Problem.of(torch.nn.Linear(4, 2), domains=2), state_dict(penalty.init(problem)))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: state.value: got a tensor of shape (2, 8) ...
    """
    tree = _opened(saved)
    if tree.keys() != {"format", "version", "state"} or tree["format"] != FORMAT:
        raise InputError(
            f"saved state: got the entries {', '.join(tree) or '(none)'}, expected what fishr.state_dict returned; "
            "give that part of the checkpoint"
        )
    if tree["version"] != VERSION:
        raise InputError(
            f"saved state: got version {tree['version']!r}, expected {VERSION}; use the version of fishr that wrote it"
        )
    require_tree(tree["state"], "saved state")
    template = penalty.init(problem)
    state = restored(tree["state"], template, "state", _FIX, growing=False)
    return each_tensor(lambda tensor: tensor.to(problem.device), state)


def _opened(saved: Any) -> dict[str, Any]:
    """Return a saved state as it is when not flat."""
    if not isinstance(saved, Mapping):
        raise InputError(
            f"saved state: got {kind(saved)}, expected the dict that fishr.state_dict returned; give "
            "that part of the checkpoint"
        )
    entries = dict(cast(Mapping[str, Any], saved))
    if _OUTLINE not in entries:
        return entries
    tensors = {name: value for name, value in entries.items() if name != _OUTLINE}
    try:
        return _filled(json.loads(bytes(entries[_OUTLINE].tolist())), tensors)
    except KeyError as error:
        raise InputError(f"saved state: got no tensor {error}; give all tensors of the file") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"saved state: got a damaged {_OUTLINE!r} ({error}); use another file") from error


def _outlined(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return a plain tree as JSON with the names of its tensors, which are added to ``tensors``."""
    if isinstance(tree, Tensor):
        # Two paths may be alike where a key has a dot.
        name = path if path not in tensors else f"{path}.{len(tensors)}"
        tensors[name] = tree.clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(tree, dict):
        below = cast(dict[str, Any], tree)
        return {"dict": {key: _outlined(part, f"{path}.{key}".lstrip("."), tensors) for key, part in below.items()}}
    if isinstance(tree, tuple | list):
        parts = cast(tuple[Any, ...], tree)
        return {type(parts).__name__: [_outlined(part, f"{path}.{i}", tensors) for i, part in enumerate(parts)]}
    return tree


def _filled(outline: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(outline, dict):
        return outline
    ((container, content),) = cast(dict[str, Any], outline).items()
    if container == "tensor":
        return tensors[content]
    if container == "dict":
        return {key: _filled(part, tensors) for key, part in content.items()}
    return {"tuple": tuple, "list": list}[container](_filled(part, tensors) for part in content)
