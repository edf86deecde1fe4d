"""What layers read in a forward pass, and where their outputs are in its graph."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import field, frozen
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from fishr.errors import InputError
from fishr.statistics.backpack_limits import no_formula
from fishr.types import Layout


@frozen(eq=False)
class Call:
    """One call of a layer: its input, and the output of a recurrent one; places of output and states in the graph."""

    read: tuple[Tensor, ...]
    versions: tuple[int, ...]
    places: tuple[GradientEdge, ...]


@frozen(eq=False)
class Recording:
    """A context that keeps the calls of the layers of some parameters, by name, unless their outputs have no graph."""

    module: nn.Module
    layout: Layout
    calls: dict[str, Call] = field(factory=dict[str, Call])
    again: list[nn.Module] = field(factory=list[nn.Module])
    _handles: list[RemovableHandle] = field(factory=list[RemovableHandle])

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name.rpartition(".")[0] for name in self.layout.names))

    @property
    def complete(self) -> bool:
        return all(name in self.calls for name in self.layers)

    def __enter__(self) -> None:
        # Before all other hooks, to see what the layer itself computes.
        for name in self.layers:
            layer = self.module.get_submodule(name)
            self._handles.append(layer.register_forward_hook(partial(self._keep, name), prepend=True, with_kwargs=True))

    def __exit__(self, *_: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _keep(self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        if not out.requires_grad:
            return
        if name in self.calls:
            self.again.append(layer)
        inputs = args[0] if args else next(iter(kwargs.values()))
        recurrent = isinstance(layer, nn.RNNBase)
        read, states = ((inputs, out), tree_leaves(output[1:])) if recurrent else ((inputs,), [])
        self.calls[name] = Call(read, _versions(read), tuple(map(get_gradient_edge, (out, *states))))

    def refuse_changes(self) -> None:
        """Refuse a layer that was called more than once, or whose input was overwritten after the call."""
        if self.again:
            reason = "it is called more than once in a forward pass; its per-sample gradient is not that of one call"
            raise no_formula(self.again[0], reason)
        for parameter in self.layout.names:
            name, _, short = parameter.rpartition(".")
            # The gradient by a bias needs δ alone.
            if short != "bias" and name in self.calls and self.calls[name].versions != _versions(self.calls[name].read):
                kind = type(self.module.get_submodule(name)).__qualname__
                raise InputError(
                    f"layer {kind}: its input is overwritten in place later in the forward pass, so that torch has no "
                    "gradient by its weights; give the later operation a copy"
                )


def _versions(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    return tuple(tensor._version for tensor in tensors)
