"""Trees of tensors: nested tuples, lists, dicts with string keys and frozen attrs records, with numbers at the leaves.

Every state of a run is such a tree. Written to disk, a record becomes a dict of its fields, so that the file holds
nothing but plain containers; a template of the same structure brings the records back.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from fishr.errors import InputError

_PLAIN = (bool, int, float, str, type(None))


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same tree with ``function`` of each tensor in its place; other leaves stay.

    Args:
        function: from a tensor to a tensor.
        tree: tuples, lists, dicts and attrs records of tensors and plain values.

    Returns:
        A new tree of the same structure and types.

    Example:
        >>> map_tensors(lambda t: t + 1, {"a": (torch.tensor(1), 5, None)})
        {'a': (tensor(2), 5, None)}
    """
    if isinstance(tree, Tensor):
        return function(tree)
    children = _children(tree)
    if children is None:
        return tree
    return _rebuilt(tree, {key: map_tensors(function, child) for key, child in children.items()})


def named_tensors(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a tree with its dotted path.

    Example:
        >>> [name for name, _ in named_tensors({"a": (torch.tensor(1), 5), "b": torch.tensor(2)})]
        ['a.0', 'b']
    """
    if isinstance(tree, Tensor):
        yield path, tree
    for key, child in (_children(tree) or {}).items():
        yield from named_tensors(child, f"{path}.{key}" if path else key)


def plain(tree: Any) -> Any:
    """The tree as ``torch.load(weights_only=True)`` can read it back: records as dicts, tensors on the CPU.

    Example:
        >>> from fishr.training.optimizers import OptimizerState
        >>> plain((OptimizerState(steps=(3,), moments={}), None))
        ({'steps': (3,), 'moments': {}}, None)
    """
    if isinstance(tree, Tensor):
        tensor = tree.detach().cpu()
        # A view would drag its whole storage into the file.
        own = is_dense(tensor) and tensor.untyped_storage().nbytes() == tensor.nbytes
        return tensor if own else tensor.clone()
    children = _children(tree)
    if children is None:
        return tree
    parts = {key: plain(child) for key, child in children.items()}
    return parts if _is_record(tree) else _rebuilt(tree, parts)


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor is a plain one on the CPU whose values neither overlap nor have gaps between them.

    Example:
        >>> is_dense(torch.zeros(2, 3).T), is_dense(torch.zeros(1).expand(3))
        (True, False)
    """
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


def require_tree(tree: Any, what: str, path: str = "") -> None:
    """Refuse what a checkpoint could not hold, or a resumed run not go on from.

    Args:
        tree: tensors without a graph, numbers, strings and None in tuples, lists, dicts and attrs records.
        what: the tree is, for the message.
        path: where in it this part stands.

    Raises:
        InputError: anything else; it names the entry.

    Example:
        >>> require_tree({"net": torch.nn.Linear(2, 2)}, "penalty state")
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: penalty state net: got a Linear, expected a tree of tensors, numbers, strings, None, \
tuples, lists, dicts with string keys and attrs records; keep the module's parameters as a dict of tensors, and call \
it by torch.func.functional_call
    """
    where = f"{what} {path}" if path else what
    if isinstance(tree, Tensor):
        if tree.requires_grad:
            raise InputError(
                f"{where}: got a tensor that holds a graph, expected none; return the state detached (tensor.detach())"
            )
        return
    # A subclass, such as a named tuple, would come back as another type; NumPy's numbers would not come back.
    if type(tree) in _PLAIN:
        return
    if type(tree) not in (tuple, list, dict) and not _is_record(tree):
        remedy = "use torch.as_tensor of numbers, and a plain tuple or dict of several"
        if isinstance(tree, nn.Module):
            remedy = "keep the module's parameters as a dict of tensors, and call it by torch.func.functional_call"
        raise InputError(
            f"{where}: got a {type(tree).__qualname__}, expected a tree of tensors, numbers, strings, None, tuples, "
            f"lists, dicts with string keys and attrs records; {remedy}"
        )
    for key, child in (_children(tree) or {}).items():
        if type(key) is not str:
            raise InputError(f"{where}: got the key {key!r}, expected strings as keys")
        require_tree(child, what, f"{path}.{key}" if path else key)


def restored(tree: Any, template: Any, path: str) -> Any:
    """A plain tree in the types of a template.

    Where the template is None or an empty container anything is accepted as it is: a state may begin empty.

    Args:
        tree: what was read.
        template: a tree of the same structure, its values unused.
        path: where the tree stands, for the message.

    Returns:
        The tree with the template's records in place of dicts.

    Raises:
        InputError: the structure, a shape or a type differs from the template's.

    Example:
        >>> from fishr.training.optimizers import OptimizerState
        >>> restored({"steps": (3,), "moments": {}}, OptimizerState(steps=(0,), moments={}), "optimizer").steps
        (3,)
    """
    if isinstance(template, Tensor):
        return _fitting(tree, template, path)
    expected = _children(template)
    if not expected:
        if expected is None and not _alike(tree, template):
            raise _misfit(tree, template, path)
        return template if _is_record(template) else tree
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
    """Whether two leaves are of one type; a count may have become a fraction, and None may have become anything."""
    numbers = (int, float)
    return template is None or type(tree) is type(template) or (type(tree) in numbers and type(template) in numbers)


def _fitting(tree: Any, template: Tensor, path: str) -> Tensor:
    if not isinstance(tree, Tensor) or tree.shape != template.shape or tree.dtype != template.dtype:
        raise _misfit(tree, template, path)
    return tree


def _outline(tree: Any) -> str:
    if isinstance(tree, Tensor):
        return f"a tensor of shape {tuple(tree.shape)} and type {tree.dtype}"
    children = _children(tree)
    return repr(tree)[:40] if children is None else f"the entries {', '.join(children) or '(none)'}"


def _is_record(tree: Any) -> bool:
    return attrs.has(cast(type[Any], type(tree)))


def _record_fields(tree: Any) -> "tuple[attrs.Attribute[Any], ...]":
    return attrs.fields(cast(type[Any], type(tree)))


def _children(tree: Any) -> dict[str, Any] | None:
    if isinstance(tree, dict):
        return cast(dict[str, Any], tree)
    if isinstance(tree, (tuple, list)):
        return {str(index): child for index, child in enumerate(cast(tuple[Any, ...], tree))}
    if _is_record(tree):
        return {field.name: getattr(tree, field.name) for field in _record_fields(tree)}
    return None


def _rebuilt(like: Any, children: dict[str, Any]) -> Any:
    if isinstance(like, dict):
        return children
    if isinstance(like, (tuple, list)):
        return type(cast(tuple[Any, ...], like))(children.values())
    arguments = {str(field.alias): children[field.name] for field in _record_fields(like)}
    return cast(Any, type(like))(**arguments)


def to_device(tree: Any, device: torch.device) -> Any:
    """The tree with every tensor on a device.

    Example:
        >>> to_device((torch.zeros(2), 1), torch.device("cpu"))
        (tensor([0., 0.]), 1)
    """
    return map_tensors(lambda tensor: tensor.to(device), tree)
