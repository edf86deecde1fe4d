"""Trees of tensors: nested tuples, lists, dicts with string keys and frozen attrs records, with numbers at the leaves.

Every state of a run is such a tree, and so are a model's inputs. On disk a record becomes a dict of its fields, so that
the file holds only plain containers; a template of the same structure brings the records back.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from fishr.errors import InputError

_RESUME = "resume with the configuration that the checkpoint was made with"
# Its operators on lists of tensors, one call for all of them, are named as if they were private.
each: Any = torch
PLAIN = (bool, int, float, str, type(None))


def each_tensor(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Return the tree with a function's result in place of every tensor."""
    if isinstance(tree, Tensor):
        return function(tree)
    children = _children(tree)
    return tree if children is None else _rebuilt(tree, {k: each_tensor(function, c) for k, c in children.items()})


def copies(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return copies without a graph; on a GPU one kernel copies all tensors of a type."""
    given = [tensor.detach() for tensor in tensors]
    copied = [torch.empty_like(tensor) for tensor in given]
    for dtype in {tensor.dtype for tensor in given}:
        pairs = [pair for pair in zip(copied, given, strict=True) if pair[0].dtype == dtype]
        each._foreach_copy_(*map(list, zip(*pairs, strict=True)))
    return copied


def to_device(tree: Any, device: torch.device | str) -> Any:
    """Return the tree with every tensor on a device."""
    return each_tensor(lambda tensor: tensor.to(device), tree)


def joined_rows(trees: Sequence[Any]) -> Any:
    """Return trees of one structure as one tree of their tensors' rows, in order."""
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.cat(tuple(trees))
    children = [_children(tree) for tree in trees]
    expected = children[0]
    if expected is None or any(other is None or other.keys() != expected.keys() for other in children):
        raise TypeError(" and ".join(dict.fromkeys(map(_outline, trees))))
    return _rebuilt(first, {key: joined_rows([other[key] for other in children if other]) for key in expected})


def parts(tree: Any) -> Iterator[tuple[str, Any, int]]:
    """Yield each part of a tree with its dotted path and its depth, a container before its own parts."""
    # A stack, because a file can describe a tree of endless depth.
    pending: list[tuple[str, Any, int]] = [("", tree, 0)]
    while pending:
        path, part, depth = pending.pop()
        yield path, part, depth
        children = {} if type(part) in PLAIN else _children(part) or {}
        pending += [(f"{path}.{key}" if path else key, child, depth + 1) for key, child in reversed(children.items())]


def leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield whatever is no container, with its dotted path."""
    return ((path, part) for path, part, _ in parts(tree) if _children(part) is None)


def named_tensors(tree: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of a tree with its dotted path."""
    return ((path, leaf) for path, leaf in leaves(tree) if isinstance(leaf, Tensor))


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


def restored(tree: Any, template: Any, path: str, fix: str = _RESUME, growing: bool = True) -> Any:
    """Return a plain tree in the types of a template, where None, {} and [] accept anything, and () too if growing."""
    misfit = InputError(f"{path}: got {_outline(tree)} in the checkpoint, expected {_outline(template)}; {fix}")
    if isinstance(template, Tensor):
        if not isinstance(tree, Tensor) or tree.shape != template.shape or tree.dtype != template.dtype:
            raise misfit
        return tree
    expected = _children(template)
    if not expected:
        if expected is None and not _alike(tree, template):
            raise misfit
        if template == () and not growing and _children(tree) != {}:
            raise misfit
        return template if attrs.has(type(template)) else tree
    found, optional = _children(tree), _optional(template)
    if found is None or not expected.keys() - optional <= found.keys() <= expected.keys():
        raise misfit
    parts = {key: restored(found.get(key), part, f"{path}.{key}", fix, growing) for key, part in expected.items()}
    return _rebuilt(template, parts)


def _optional(tree: Any) -> set[str]:
    """Return the fields of a record that are None by default, and now; a file from before they existed lacks them."""
    fields = attrs.fields(type(tree)) if attrs.has(type(tree)) else ()
    return {field.name for field in fields if field.default is None and getattr(tree, field.name) is None}


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
    if isinstance(tree, Mapping):
        return dict(cast(Mapping[str, Any], tree))
    if isinstance(tree, (tuple, list)):
        return {str(index): child for index, child in enumerate(cast(tuple[Any, ...], tree))}
    if attrs.has(type(tree)):
        return {field.name: getattr(tree, field.name) for field in attrs.fields(type(tree))}
    return None


def _rebuilt(like: Any, children: dict[str, Any]) -> Any:
    if isinstance(like, Mapping):
        return children
    if isinstance(like, tuple) and hasattr(like, "_make"):
        return type(cast(Any, like))(*children.values())
    if isinstance(like, (tuple, list)):
        return type(cast(tuple[Any, ...], like))(children.values())
    return type(like)(**{str(field.alias): children[field.name] for field in attrs.fields(type(like))})
