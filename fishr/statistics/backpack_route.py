"""Per-domain gradient moments of a network's layers by the BackPACK extension, without BackPACK's hooks.

One forward pass notes what each chosen layer reads and the place of its output in the graph; one backward pass gives
the losses' gradients δ at these places and goes no deeper; the extension reduces them. BackPACK's own hooks, which
would call it, refuse operations in place, as in residual networks, and hold every layer's output.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves

from fishr.losses import Loss, per_sample_losses
from fishr.statistics.backpack_extension import SAVEFIELD, DomainMoments
from fishr.statistics.backpack_limits import (
    refuse_missing,
    refuse_overwritten,
    refuse_second_call,
    refuse_second_use,
    refuse_states,
    refuse_unsupported,
)
from fishr.statistics.pure_forward import checked_rows, eagerly, twin
from fishr.statistics.twice_differentiable import double_backward_kernels
from fishr.types import GradientMoments, Layout


@frozen(eq=False)
class _Call:
    """A layer's input and the place of its output in the graph; of a recurrent layer also the output and its states."""

    inputs: Tensor
    edge: GradientEdge
    output: Tensor | None
    states: list[GradientEdge]
    versions: tuple[int, ...]

    @property
    def overwritten(self) -> bool:
        read = (self.inputs,) if self.output is None else (self.inputs, self.output)
        return self.versions != tuple(tensor._version for tensor in read)


def backpack_moments(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    sizes: tuple[int, ...],
    loss: Loss,
    dtype: torch.dtype,
    layers: tuple[str, ...] | None = None,
) -> GradientMoments:
    """Per-domain moments of a head's per-sample gradients by its layers' formulas.

    The head and the features are left as they are: the pass goes through a twin that shares the parameters. Layers
    that draw at random, such as dropout, draw anew.

    Args:
        head: module whose chosen parameters are in layers that BackPACK or we have formulas for.
        features: [N, ...] what the head reads; with or without a graph.
        labels: what the loss reads.
        sizes: samples of each domain, summing to N.
        loss: per-sample loss.
        dtype: in which sums over samples are taken.
        layers: names of layers or parameters that the gradients are taken by; None: all.

    Returns:
        Moments, differentiable by features and all parameters unless gradients are switched off.

    Raises:
        NoFormula: no statistic can be had for a chosen parameter; the message names it, its layer and the remedy.

    Example:
        >>> from fishr.losses import CrossEntropy
        >>> head = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> labels = torch.tensor([0, 1, 0, 1])
        >>> backpack_moments(head, torch.randn(4, 3), labels, (2, 2), CrossEntropy(), torch.float32).mean.shape
        torch.Size([2, 26])
    """
    layout = Layout.of(head, layers)
    graph = torch.is_grad_enabled()
    refuse_unsupported(head, layout.names, graph)
    copied = twin(head)
    with torch.enable_grad():
        calls, total = _forward(copied, layout.names, features if graph else features.detach(), labels, loss)
        edges = [call.edge for call in calls.values()]
        states = [(name, edge) for name, call in calls.items() for edge in call.states]
        with warnings.catch_warnings():
            # So do the hooks of a head that the user extended.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            # Nothing is asked of layers below the first chosen one, and ``.grad`` is never touched.
            wanted = [*edges, *(edge for _, edge in states)]
            found = torch.autograd.grad(total, wanted, create_graph=graph, allow_unused=True) if wanted else ()
    # Without a way from the loss there is no gradient.
    by_output, by_state = (cast(Sequence[Tensor | None], part) for part in (found[: len(edges)], found[len(edges) :]))
    for (name, _), delta in zip(states, by_state, strict=True):
        if delta is not None:
            refuse_states(copied.get_submodule(name))
    reduced = dict[str, tuple[Tensor, Tensor]]()
    for (of, call), delta in zip(calls.items(), by_output, strict=True):
        if delta is not None:
            names = tuple(name for name in layout.names if name.rpartition(".")[0] == of)
            reduced |= _reduced(copied.get_submodule(of), names, call, delta, sizes, dtype)
    if missing := [name for name in layout.names if name not in reduced]:
        refuse_missing(head, missing[0])
    columns = [reduced[name] for name in layout.names]
    mean, variance = (torch.cat([part[i].flatten(1) for part in columns], 1) for i in (0, 1))
    return GradientMoments(tuple(sizes), mean, variance, layout)


def _reduced(
    layer: nn.Module, names: tuple[str, ...], call: _Call, delta: Tensor, sizes: tuple[int, ...], dtype: torch.dtype
) -> dict[str, tuple[Tensor, Tensor]]:
    """What the extension makes of one layer's δ, by the parameters' names; it leaves nothing on them."""
    short = {name: name.rpartition(".")[2] for name in names}
    # As BackPACK's forward hook would have kept them.
    seen: Any = layer
    seen.input0, seen.output = call.inputs, delta if call.output is None else call.output
    try:
        DomainMoments(sizes, dtype, {type(layer): tuple(short.values())})(layer, (), (delta,))  # pyright: ignore
        return {name: getattr(getattr(layer, own), SAVEFIELD) for name, own in short.items()}
    finally:
        del seen.input0, seen.output
        for own in short.values():
            if hasattr(getattr(layer, own), SAVEFIELD):
                delattr(getattr(layer, own), SAVEFIELD)


def _forward(
    copied: nn.Module, parameters: tuple[str, ...], features: Tensor, labels: Tensor, loss: Loss
) -> tuple[dict[str, _Call], Tensor]:
    """One call of each layer that was reached, and the sum of the losses."""
    calls, again = dict[str, _Call](), list[nn.Module]()

    def keep(name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        if not out.requires_grad:
            return
        if name in calls:
            again.append(layer)
        read = args[0] if args else next(iter(kwargs.values()))
        recurrent = isinstance(layer, nn.RNNBase)
        states = [get_gradient_edge(state) for state in tree_leaves(output[1:])] if recurrent else []
        versions = (read._version, out._version) if recurrent else (read._version,)
        calls[name] = _Call(read, get_gradient_edge(out), out if recurrent else None, states, versions)

    # Before all other hooks, so that it sees what the layer itself computes.
    handles = [
        copied.get_submodule(name).register_forward_hook(partial(keep, name), prepend=True, with_kwargs=True)
        for name in dict.fromkeys(name.rpartition(".")[0] for name in parameters)
    ]
    with eagerly(copied), double_backward_kernels(copied):
        # A copy, because the first layer may write into it.
        logits = checked_rows("head", copied, copied(features.clone()), len(features))
        total = per_sample_losses(loss, logits, labels).sum()
    for handle in handles:
        handle.remove()
    refuse_second_use(copied, parameters, total, features)
    for layer in again:
        refuse_second_call(layer)
    for parameter in parameters:
        name, _, short = parameter.rpartition(".")
        # The gradient by a bias is made from δ alone.
        if short != "bias" and name in calls and calls[name].overwritten:
            refuse_overwritten(copied.get_submodule(name))
    return calls, total
