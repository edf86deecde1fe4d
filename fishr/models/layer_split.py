"""A network cut at one of its layers: the layers up to it, and those above."""

from difflib import get_close_matches

import torch
from torch import Tensor, fx, nn

from fishr.errors import InputError
from fishr.models.frozen import FrozenFeaturizer
from fishr.statistics.moments import at_least_float32


class SplitFeaturizer(nn.Module):
    """A featurizer whose layers up to one are frozen, or absent: the inputs are then that layer's outputs."""

    def __init__(self, above: nn.Module, below: nn.Module | None = None) -> None:
        super().__init__()
        self.below = None if below is None else FrozenFeaturizer(below)
        self.above = above
        self.below_sha256: str | None = None  # of the weights of absent layers, where they are known

    def forward(self, inputs: Tensor) -> Tensor:
        """Return features [N, F]."""
        outputs = inputs if self.below is None else self.below(inputs)
        # One type and memory layout, whether the outputs come from the layers below or from a file.
        return self.above(at_least_float32(outputs).contiguous())


def split_at(network: nn.Module, layer: str, probe: Tensor) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return the network up to a layer, the network above it, and the layer's outputs of some inputs in eval mode."""
    # Only modules around the layer are traced; all others are called as they are. Both parts share the network's
    # modules under their names, and neither holds those of the other.
    layer = module_name(network, layer)
    traced = {mode: _traced(network, layer, mode) for mode in (False, True)}
    if str(traced[False]) != str(traced[True]):
        raise _refusal(layer, "the layers around it compute something else while training", "take a layer above")
    nodes = [node for node in traced[True].nodes if node.op == "call_module" and node.target == layer]
    if len(nodes) != 1:
        raise _refusal(layer, f"it is called {len(nodes)} times", "take a layer that is called once")
    below = _part(network, traced[True], nodes[0])
    above = _rest(network, traced[True], nodes[0], layer)
    return below, above, _checked(network, layer, below, above, probe)


def module_name(network: nn.Module, layer: str) -> str:
    """Return the full name of a layer, given it or its end, with or without "featurizer." before it."""
    names = [name for name, _ in network.named_modules() if name]
    wanted = layer.removeprefix("featurizer.")
    found = [name for name in names if name == wanted] or [name for name in names if name.endswith(f".{wanted}")]
    if len(found) != 1:
        near = found or get_close_matches(wanted, names, 3, 0.4) or names[:3]
        problem = f"which {len(found)} layers are called" if found else "which is no layer of the network"
        raise InputError(f"at: got {layer!r}, {problem}; expected a name such as {', '.join(near)}")
    return found[0]


class _Tracer(fx.Tracer):
    """Traces the forward passes of the modules around a layer, and nothing inside the others."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        parts = layer.split(".")
        self._around = {".".join(parts[:end]) for end in range(1, len(parts))}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._around


def _traced(network: nn.Module, layer: str, training: bool) -> fx.Graph:
    modes = [(module, module.training) for module in network.modules()]
    try:
        return _Tracer(layer).trace(network.train(training))
    except Exception as error:  # a traced forward pass raises whatever it does with what is no tensor
        reason = " ".join(str(error).split())[:200]
        raise _refusal(layer, f"the layers around it cannot be traced ({reason})", "take another layer") from error
    finally:
        for module, mode in modes:
            module.training = mode


def _part(network: nn.Module, graph: fx.Graph, last: fx.Node) -> nn.Module:
    """Return the module of a node and all that it depends on."""
    needed = {last}
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    part, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        if node in needed or node.op == "placeholder":
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[last])
    return fx.GraphModule(network, part)


def _rest(network: nn.Module, graph: fx.Graph, first: fx.Node, layer: str) -> nn.Module:
    """Return the module from a node's output to the network's."""
    above, below = {first}, set[fx.Node]()
    for node in graph.nodes:
        if node is first:
            continue
        if above.intersection(node.all_input_nodes):
            above.add(node)
        elif node.op == "placeholder" or below.intersection(node.all_input_nodes):
            below.add(node)
    needed = {node for node in graph.nodes if node.op == "output"}
    for node in reversed(graph.nodes):
        if node in needed and node is not first:
            needed.update(node.all_input_nodes)
    if first not in needed:
        raise _refusal(layer, "the features do not depend on it", "take another layer")
    rest = fx.Graph()
    copies = {first: rest.placeholder("outputs")}
    for node in graph.nodes:
        if node in needed and node is not first and node not in below:
            if crossing := below.intersection(node.all_input_nodes):
                found = ", ".join(sorted(map(str, crossing)))
                raise _refusal(layer, f"{node.name} above it also reads {found} below it", "take another layer")
            copies[node] = rest.node_copy(node, copies.__getitem__)
    return fx.GraphModule(network, rest)


def _checked(network: nn.Module, layer: str, below: nn.Module, above: nn.Module, probe: Tensor) -> Tensor:
    """Return the layer's outputs; refuse parts that do not give the bits of the whole network."""
    modes = [(module, module.training) for part in (network, below, above) for module in part.modules()]
    try:
        for part in (network, below, above):
            part.eval()
        with torch.no_grad():
            outputs = below(probe.clone())
            if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
                raise _refusal(
                    layer, f"its output is {type(outputs).__name__}", "take a layer whose output is a tensor"
                )
            if len(outputs) != len(probe):
                raise _refusal(layer, f"it has {len(outputs)} outputs of {len(probe)} samples", "take another layer")
            if not torch.equal(above(outputs.contiguous().clone()), network(probe.clone())):
                raise _refusal(layer, "the layers above it do not give the network's features", "take another layer")
    finally:
        for module, mode in modes:
            module.training = mode
    return outputs


def _refusal(layer: str, reason: str, remedy: str) -> InputError:
    return InputError(f"at: got {layer!r}, at which the network cannot be cut: {reason}; {remedy}")
