"""Layers that have no correct per-sample gradient formula here; each is refused by name, none is skipped."""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import NoReturn

import torch
from torch import Tensor, nn

from fishr.errors import InputError

_WEIGHT_AND_BIAS: tuple[type[nn.Module], ...] = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.GroupNorm, nn.LayerNorm),
)
# Layers that BackPACK or this package has formulas for, and the parameters covered in each.
PARAMETERS: dict[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys(_WEIGHT_AND_BIAS, ("weight", "bias")),
    **dict.fromkeys((nn.RMSNorm, nn.Embedding), ("weight",)),
    **dict.fromkeys((nn.RNN, nn.LSTM), ("bias_ih_l0", "bias_hh_l0", "weight_ih_l0", "weight_hh_l0")),
}
REMEDY = 'use route="functional", which differentiates any module with torch.func'


class _Plain:
    # What every class has, in any version of Python.
    annotated: None


# Attributes that a subclass may redefine without computing something else.
_HARMLESS = {*vars(_Plain), "__annotations__", "__annotations_cache__", "__init__", "__reduce__", "extra_repr"}


class NoFormula(InputError):
    """A chosen parameter has no per-sample gradient on the BackPACK route, though ``torch.func`` has one."""


def no_formula(layer: nn.Module, reason: str) -> NoFormula:
    """Return the error for a layer, with the remedy."""
    return NoFormula(f"layer {type(layer).__qualname__}: {reason}; {REMEDY}")


def layer_kind(layer: nn.Module) -> type[nn.Module] | None:
    """Return the class of ``PARAMETERS`` that computes the same as the layer, a subclass that redefines nothing too."""
    own = list[str]()
    for kind in type(layer).__mro__:
        if kind in PARAMETERS:
            changed = [name for name in own if hasattr(kind, name) and name not in _HARMLESS]
            return None if changed else kind
        own += vars(kind)
    return None


def _named(head: nn.Module, names: Collection[str]) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Yield the parameters in ``names`` under each of the names that they have, with their layers."""
    chosen = {id(head.get_parameter(name)) for name in names}
    for prefix, module in head.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if id(parameter) in chosen:
                yield f"{prefix}.{name}" if prefix else name, module, name, parameter


def refuse_unsupported(head: nn.Module, names: Collection[str], graph: bool) -> None:
    """Refuse a parameter in ``names`` without a correct formula; ``graph`` asks for differentiable statistics."""
    seen = dict[int, str]()
    for name, module, short, parameter in _named(head, names):
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
    """Return the setting of a supported layer for which BackPACK fails or returns a wrong gradient, else ""."""
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


def refuse_second_use(head: nn.Module, names: Collection[str], total: Tensor, features: Tensor) -> None:
    """Refuse a parameter used more than once between ``features`` and ``total``: no one layer sees its gradient."""
    uses, todo, done = Counter[int](), [total.grad_fn], {features.grad_fn}
    while todo:
        node = todo.pop()
        if node is None or node in done:
            continue
        done.add(node)
        for child, _ in node.next_functions:
            uses[id(getattr(child, "variable", None))] += 1
            todo.append(child)
    for name, module, _, parameter in _named(head, names):
        # Recurrent layers read their weights once a time step.
        if uses[id(parameter)] > 1 and not isinstance(module, nn.RNNBase):
            raise NoFormula(
                f"{_where(name, module)}: it is read more than once in a forward pass, so that its gradient is not "
                f"that of one call; {REMEDY}"
            )


def refuse_missing(head: nn.Module, name: str) -> NoReturn:
    """Refuse a parameter that the backward pass returned no statistic for."""
    layer = head.get_submodule(name.rpartition(".")[0])
    raise NoFormula(
        f"{_where(name, layer)}: no statistic came back from the backward pass, so the loss does not depend on it "
        f"through its layer's forward; {REMEDY}"
    )


def _where(name: str, module: nn.Module) -> str:
    return f"parameter {name!r} of {type(module).__module__}.{type(module).__qualname__}"
