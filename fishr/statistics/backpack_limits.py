"""Heads for which BackPACK has no right per-sample gradient; each is refused by name, none is skipped."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from fishr.errors import InputError

_WEIGHT_BIAS = ("weight", "bias")
_RECURRENT = ("bias_ih_l0", "bias_hh_l0", "weight_ih_l0", "weight_hh_l0")

# Layers that BackPACK's first-order extensions know, by exact class, and the parameters they know of each.
PARAMETERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: _WEIGHT_BIAS,
    nn.Conv1d: _WEIGHT_BIAS,
    nn.Conv2d: _WEIGHT_BIAS,
    nn.Conv3d: _WEIGHT_BIAS,
    nn.ConvTranspose1d: _WEIGHT_BIAS,
    nn.ConvTranspose2d: _WEIGHT_BIAS,
    nn.ConvTranspose3d: _WEIGHT_BIAS,
    nn.BatchNorm1d: _WEIGHT_BIAS,
    nn.BatchNorm2d: _WEIGHT_BIAS,
    nn.BatchNorm3d: _WEIGHT_BIAS,
    nn.Embedding: ("weight",),
    nn.RNN: _RECURRENT,
    nn.LSTM: _RECURRENT,
}
REMEDY = 'use route="functional", which differentiates any module with torch.func'


def _owners(head: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    for prefix, module in head.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter.requires_grad:
                yield f"{prefix}.{name}" if prefix else name, module, name, parameter


def refuse_unsupported(head: nn.Module, graph: bool) -> None:
    """Refuse a head with a parameter whose per-sample gradient BackPACK lacks, or gets wrong.

    Args:
        head: the module whose trainable parameters the gradients are taken by.
        graph: the statistics are to be differentiated.

    Raises:
        InputError: naming the first such parameter, its layer and the remedy.

    Example:
        >>> refuse_unsupported(nn.Linear(3, 2), graph=True)
    """
    seen = dict[int, str]()
    for name, module, short, parameter in _owners(head):
        where = _where(name, module)
        if short not in PARAMETERS.get(type(module), ()):
            raise InputError(f"{where}: BackPACK has no per-sample gradient for it; {REMEDY}")
        if graph and isinstance(module, nn.RNNBase):
            raise InputError(
                f"{where}: BackPACK's formulas for it cannot be differentiated again; {REMEDY}, "
                "or take the statistics under torch.no_grad()"
            )
        if setting := _unsupported_setting(module):
            raise InputError(f"{where}: BackPACK has no per-sample gradient for {setting}; {REMEDY}")
        if id(parameter) in seen:
            raise InputError(f"{where}: it is the same tensor as {seen[id(parameter)]!r}; {REMEDY}")
        if torch.finfo(parameter.dtype).bits < 32:
            raise InputError(f"{where}: got {parameter.dtype}, expected float32 or wider for statistics; {REMEDY}")
        seen[id(parameter)] = name


def _unsupported_setting(module: nn.Module) -> str:
    """The setting of a supported layer for which BackPACK fails or, worse, returns another layer's gradient."""
    if isinstance(module, nn.RNNBase):
        plain = isinstance(module, nn.LSTM) or getattr(module, "nonlinearity", "tanh") == "tanh"
        single = module.num_layers == 1 and not module.bidirectional and not module.proj_size
        if not (plain and single and module.batch_first and module.bias and not module.dropout):
            return "any but one batch-first layer of tanh or LSTM cells with bias"
    if isinstance(module, nn.Embedding):
        unlike = {"padding_idx": None, "max_norm": None, "scale_grad_by_freq": False, "sparse": False}
        return next((name for name, plain in unlike.items() if getattr(module, name) != plain), "")
    padding, mode = getattr(module, "padding", 0), getattr(module, "padding_mode", "zeros")
    if isinstance(padding, str):
        return f"padding={padding!r} (give numbers)"
    if mode != "zeros":
        return f"padding_mode={mode!r}"
    if any(getattr(module, "output_padding", ())):
        return "output_padding"
    return ""


def refuse_changed_outputs(head: nn.Module) -> None:
    """Have layers raise whose output a forward hook changes: BackPACK reads the gradient of what the hook returns.

    Args:
        head: a module to be thrown away; hooks are added to it.

    Example:
        >>> head = nn.Linear(3, 2)
        >>> refuse_changed_outputs(head)
        >>> head(torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """
    for name, module, short, _ in _owners(head):
        if not module._forward_hooks or short != PARAMETERS[type(module)][0]:  # pyright: ignore[reportPrivateUsage]
            continue
        computed = list[tuple[object, int]]()

        def keep(module: nn.Module, _: Any, output: Any, computed: list[tuple[object, int]] = computed) -> None:
            computed[:] = [(output, getattr(output, "_version", 0))]

        def compare(
            module: nn.Module, _: Any, output: Any, computed: list[tuple[object, int]] = computed, name: str = name
        ) -> None:
            before, version = computed.pop()
            if output is not before or getattr(output, "_version", 0) != version:
                raise InputError(f"{_where(name, module)}: a forward hook changes its layer's output; {REMEDY}")

        module.register_forward_hook(keep, prepend=True)
        module.register_forward_hook(compare)


def refuse_second_use(head: nn.Module, total: Tensor, features: Tensor) -> None:
    """Refuse a parameter that is read more than once in a forward pass: no layer's hook sees its whole gradient.

    Args:
        head: what ``total`` was computed by.
        total: 0-dim, with its graph.
        features: where the head's part of the graph ends.

    Example:
        >>> head, features = nn.Linear(3, 2), torch.zeros(4, 3, requires_grad=True)
        >>> refuse_second_use(head, head(features).sum(), features)
    """
    uses, todo, done = Counter[int](), [total.grad_fn], {features.grad_fn}
    while todo:
        node = todo.pop()
        if node is None or node in done:
            continue
        done.add(node)
        for child, _ in node.next_functions:
            uses[id(getattr(child, "variable", None))] += 1
            todo.append(child)
    for name, module, _, parameter in _owners(head):
        # Recurrent layers read their weights once a time step.
        if uses[id(parameter)] > 1 and not isinstance(module, nn.RNNBase):
            raise InputError(
                f"{_where(name, module)}: it is read more than once in a forward pass, so that its gradient is not "
                f"that of one call; {REMEDY}"
            )


def refuse_missing(head: nn.Module, name: str) -> NoReturn:
    """Say which parameter no statistic came back for.

    Example:
        >>> refuse_missing(nn.Linear(3, 2), "bias")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: head parameter 'bias' of torch.nn.modules.linear.Linear: no statistic came back ...
    """
    module = next(module for full, module, _, _ in _owners(head) if full == name)
    raise InputError(
        f"{_where(name, module)}: no statistic came back from the backward pass, so the loss does not depend on it "
        f"through its layer's forward; {REMEDY}"
    )


def _where(name: str, module: nn.Module) -> str:
    return f"head parameter {name!r} of {type(module).__module__}.{type(module).__qualname__}"
