"""Layers whose per-sample gradients have no right formula here; each is refused by name, none is skipped."""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import NoReturn

import torch
from torch import Tensor, nn

from fishr.errors import InputError

_WEIGHT_BIAS = ("weight", "bias")
_RECURRENT = ("bias_ih_l0", "bias_hh_l0", "weight_ih_l0", "weight_hh_l0")

# Layers that BackPACK's first-order derivatives or ours know, and the parameters they know of each.
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
    nn.InstanceNorm1d: _WEIGHT_BIAS,
    nn.InstanceNorm2d: _WEIGHT_BIAS,
    nn.InstanceNorm3d: _WEIGHT_BIAS,
    nn.GroupNorm: _WEIGHT_BIAS,
    nn.LayerNorm: _WEIGHT_BIAS,
    nn.RMSNorm: ("weight",),
    nn.Embedding: ("weight",),
    nn.RNN: _RECURRENT,
    nn.LSTM: _RECURRENT,
}
# What a subclass may define anew without computing something else.
_HARMLESS = frozenset(vars(type("_Empty", (), {}))) | {"__annotations__", "__init__", "__reduce__", "extra_repr"}
REMEDY = 'use route="functional", which differentiates any module with torch.func'


class NoFormula(InputError):
    """A chosen parameter has no per-sample gradient on the BackPACK route, though ``torch.func`` has one."""


def layer_kind(layer: nn.Module) -> type[nn.Module] | None:
    """The class of this table that computes what the layer computes, or None.

    A subclass counts as its base where it redefines nothing of it, as batch normalization that is kept in eval mode.

    Example:
        >>> layer_kind(nn.Linear(3, 2)), layer_kind(nn.ReLU())
        (<class 'torch.nn.modules.linear.Linear'>, None)
    """
    own = list[str]()
    for kind in type(layer).__mro__:
        if kind in PARAMETERS:
            changed = [name for name in own if hasattr(kind, name) and name not in _HARMLESS]
            return None if changed else kind
        own += vars(kind)
    return None


def _owners(
    head: nn.Module, names: Collection[str] | None = None
) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Trainable parameters under each of their names, with their layers; those that are among ``names`` alone."""
    chosen = None if names is None else {id(head.get_parameter(name)) for name in names}
    for prefix, module in head.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter.requires_grad and (chosen is None or id(parameter) in chosen):
                yield f"{prefix}.{name}" if prefix else name, module, name, parameter


def refuse_unsupported(head: nn.Module, names: Collection[str], graph: bool) -> None:
    """Refuse a parameter whose per-sample gradient has no formula, or a wrong one.

    Args:
        head: the module.
        names: parameters that the gradients are taken by; no other is looked at.
        graph: the statistics are to be differentiated.

    Raises:
        NoFormula: naming the first such parameter, its layer and the remedy.

    Example:
        >>> refuse_unsupported(nn.Linear(3, 2), ["weight"], graph=True)
    """
    seen = dict[int, str]()
    for name, module, short, parameter in _owners(head, names):
        where = _where(name, module)
        kind = layer_kind(module)
        if kind is None or short not in PARAMETERS[kind]:
            raise NoFormula(f"{where}: BackPACK has no per-sample gradient for it; {REMEDY}")
        if graph and isinstance(module, nn.RNNBase):
            raise NoFormula(
                f"{where}: BackPACK's formulas for it cannot be differentiated again; {REMEDY}, "
                "or take the statistics under torch.no_grad()"
            )
        if setting := _unsupported_setting(module):
            raise NoFormula(f"{where}: BackPACK has no per-sample gradient for {setting}; {REMEDY}")
        if id(parameter) in seen:
            raise NoFormula(f"{where}: it is the same tensor as {seen[id(parameter)]!r}; {REMEDY}")
        if torch.finfo(parameter.dtype).bits < 32:
            raise NoFormula(f"{where}: got {parameter.dtype}, expected float32 or wider for statistics; {REMEDY}")
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


def refuse_second_call(layer: nn.Module) -> NoReturn:
    """Say that a layer is called more than once.

    Example:
        >>> refuse_second_call(nn.Linear(3, 2))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        fishr.statistics.backpack_limits.NoFormula: layer Linear: it is called more than once in a forward pass, so ...
    """
    raise NoFormula(
        f"layer {type(layer).__qualname__}: it is called more than once in a forward pass, "
        f"so that its per-sample gradient is not that of one call; {REMEDY}"
    )


def refuse_states(layer: nn.Module) -> NoReturn:
    """Say that the loss reads more of a recurrent layer than its output.

    Example:
        >>> refuse_states(nn.LSTM(3, 2))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        fishr.statistics.backpack_limits.NoFormula: layer LSTM: the loss reads its states beside its output, ...
    """
    raise NoFormula(
        f"layer {type(layer).__qualname__}: the loss reads its states beside its output, for which BackPACK has no "
        f"per-sample gradient; {REMEDY}"
    )


def refuse_other_rows(layer: nn.Module, rows: int, samples: int) -> None:
    """Refuse a layer whose rows are not samples.

    Example:
        >>> refuse_other_rows(nn.Linear(3, 2), rows=5, samples=5)
    """
    if rows != samples:
        raise NoFormula(
            f"layer {type(layer).__qualname__}: its output has {rows} rows for {samples} samples, so that rows "
            f"are not samples; {REMEDY}"
        )


def refuse_overwritten(layer: nn.Module) -> NoReturn:
    """Say that what a layer read was overwritten afterwards."""
    raise InputError(
        f"layer {type(layer).__qualname__}: what it read is overwritten in place later in the forward pass, so that "
        "torch has no gradient by its weights; give the later operation a copy"
    )


def refuse_second_use(head: nn.Module, names: Collection[str], total: Tensor, features: Tensor) -> None:
    """Refuse a parameter that is read more than once in a forward pass: no single layer sees its whole gradient.

    Args:
        head: what ``total`` was computed by.
        names: parameters that the gradients are taken by.
        total: 0-dim, with its graph.
        features: where the head's part of the graph ends.

    Example:
        >>> head, features = nn.Linear(3, 2), torch.zeros(4, 3, requires_grad=True)
        >>> refuse_second_use(head, ["weight"], head(features).sum(), features)
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
    for name, module, _, parameter in _owners(head, names):
        # Recurrent layers read their weights once a time step.
        if uses[id(parameter)] > 1 and not isinstance(module, nn.RNNBase):
            raise NoFormula(
                f"{_where(name, module)}: it is read more than once in a forward pass, so that its gradient is not "
                f"that of one call; {REMEDY}"
            )


def refuse_missing(head: nn.Module, name: str) -> NoReturn:
    """Say which parameter no statistic came back for.

    Example:
        >>> refuse_missing(nn.Linear(3, 2), "bias")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        fishr.statistics.backpack_limits.NoFormula: parameter 'bias' of torch.nn.modules.linear.Linear: no ...
    """
    module = next(module for full, module, _, _ in _owners(head) if full == name)
    raise NoFormula(
        f"{_where(name, module)}: no statistic came back from the backward pass, so the loss does not depend on it "
        f"through its layer's forward; {REMEDY}"
    )


def _where(name: str, module: nn.Module) -> str:
    return f"parameter {name!r} of {type(module).__module__}.{type(module).__qualname__}"
