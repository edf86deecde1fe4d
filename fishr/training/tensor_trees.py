"""Trees of tensors: nested tuples, lists, dicts with string keys and frozen attrs records, with numbers at the leaves.

Every state of a run is such a tree. On disk a record becomes a dict of its fields, so that the file holds only plain
containers; a template of the same structure brings the records back.
"""

from collections.abc import Iterator
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from fishr.errors import InputError

PLAIN = (bool, int, float, str, type(None))


def to_device(tree: Any, device: torch.device) -> Any:
    """Return the tree with every tensor on a device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    children = _children(tree)
    return tree if children is None else _rebuilt(tree, {k: to_device(child, device) for k, child in children.items()})


def parts(tree: Any) -> Iterator[tuple[str, Any, int]]:
    """Yield each part of a tree with its dotted path and its depth, a container before its own parts."""
    # A stack, because a file can describe a tree of endless depth.
    pending: list[tuple[str, Any, int]] = [("", tree, 0)]
    while pending:
        path, part, depth = pending.pop()
        yield path, part, depth
        children = {} if type(part) in PLAIN else _children(part) or {}
        pending += [(f"{path}.{key}" if path else key, child, depth + 1) for key, child in reversed(children.items())]


def named_tensors(tree: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of a tree with its dotted path."""
    return ((path, part) for path, part, _ in parts(tree) if isinstance(part, Tensor))


def plain(tree: Any) -> Any:
    """Return the tree as ``torch.load(weights_only=True)`` can read it: records as dicts, tensors on the CPU."""
    if isinstance(tree, Tensor):
        tensor = tree.detach().cpu()
        # A view would drag its whole storage into the file.
        own = is_dense(tensor) and tensor.untyped_storage().nbytes() == tensor.nbytes
        return tensor if own else tensor.clone()
    children = _children(tree)
    if children is None:
        return tree
    parts = {key: plain(child) for key, child in children.items()}
    return parts if attrs.has(type(tree)) else _rebuilt(tree, parts)


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor is a plain one on the CPU whose values neither overlap nor have gaps between them."""
    if type(tensor) is not Tensor or tensor.layout != torch.strided or tensor.requires_grad or not tensor.is_cpu:
        return False
    if tensor.numel() == 0:
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def require_tree(tree: Any, what: str) -> None:
    """Refuse a tree that a checkpoint could not hold, or that a run could not resume from."""
    for path, part, _ in parts(tree):
        where = f"{what} {path}" if path else what
        if isinstance(part, Tensor) and part.requires_grad:
            raise InputError(
                f"{where}: got a tensor that holds a graph, expected none; return the state detached (tensor.detach())"
            )
        # A subclass, such as a named tuple, would come back as another type; NumPy's numbers would not come back.
        if not isinstance(part, Tensor) and type(part) not in (*PLAIN, tuple, list, dict) and not attrs.has(type(part)):
            remedy = "use torch.as_tensor of numbers, and a plain tuple or dict of several"
            if isinstance(part, nn.Module):
                remedy = "keep the module's parameters as a dict of tensors, and call it by torch.func.functional_call"
            raise InputError(
                f"{where}: got a {type(part).__qualname__}, expected a tree of tensors, numbers, strings, None, "
                f"tuples, lists, dicts with string keys and attrs records; {remedy}"
            )
        for key in cast(dict[Any, Any], part) if isinstance(part, dict) else ():
            if type(key) is not str:
                raise InputError(f"{where}: got the key {key!r}, expected strings as keys")


def restored(tree: Any, template: Any, path: str) -> Any:
    """Return a plain tree in the types of a template; None and empty containers in the template accept anything."""
    if isinstance(template, Tensor):
        if not isinstance(tree, Tensor) or tree.shape != template.shape or tree.dtype != template.dtype:
            raise _misfit(tree, template, path)
        return tree
    expected = _children(template)
    if not expected:
        if expected is None and not _alike(tree, template):
            raise _misfit(tree, template, path)
        return template if attrs.has(type(template)) else tree
    found = _children(tree)
    if found is None or found.keys() != expected.keys():
        raise _misfit(tree, template, path)
    return _rebuilt(template, {key: restored(found[key], expected[key], f"{path}.{key}") for key in expected})


def _misfit(tree: Any, template: Any, path: str) -> InputError:
    return InputError(
        f"{path}: got {_outline(tree)} in the checkpoint, expected {_outline(template)}; "
        "resume with the configuration that the checkpoint was made with"
    )


def _alike(tree: Any, template: Any) -> bool:
    """Return whether two leaves are of one type; a count may have become a fraction, None anything."""
    numbers = (int, float)
    return template is None or type(tree) is type(template) or (type(tree) in numbers and type(template) in numbers)


def _outline(tree: Any) -> str:
    if isinstance(tree, Tensor):
        return f"a tensor of shape {tuple(tree.shape)} and type {tree.dtype}"
    children = _children(tree)
    return repr(tree)[:40] if children is None else f"the entries {', '.join(children) or '(none)'}"


def _children(tree: Any) -> dict[str, Any] | None:
    if isinstance(tree, dict):
        return cast(dict[str, Any], tree)
    if isinstance(tree, (tuple, list)):
        return {str(index): child for index, child in enumerate(cast(tuple[Any, ...], tree))}
    if attrs.has(type(tree)):
        return {field.name: getattr(tree, field.name) for field in attrs.fields(type(tree))}
    return None


def _rebuilt(like: Any, children: dict[str, Any]) -> Any:
    if isinstance(like, dict):
        return children
    if isinstance(like, (tuple, list)):
        return type(cast(tuple[Any, ...], like))(children.values())
    return type(like)(**{str(field.alias): children[field.name] for field in attrs.fields(type(like))})
