"""The layers of a network above one whose outputs a file has."""

from pathlib import Path

import torch
from attrs import evolve, field, frozen
from attrs.validators import deep_iterable
from torch import Tensor, nn

from fishr.checks import text_line, whole
from fishr.errors import InputError
from fishr.models.featurizers import Featurizer, without_weights
from fishr.models.layer_split import SplitFeaturizer, module_name, split_at
from fishr.models.weight_files import load_weights, weights_digest
from fishr.paths import typed_path


@frozen
class LayersAbove:
    """Featurizer of the layers above one, whose outputs ``fishr cache features --at LAYER`` computed once.

    Its inputs are these outputs. The weights after training are bit-identical to those of training through
    ``Frozen(inner, at=...)`` on the network's own inputs.

    Args:
        inner: The whole network's featurizer.
        at: Name of the layer, see ``Frozen``.
        inputs: Shape of an input of the whole network.
        weights: A file of activations, whose layers above have the first weights; relative to the working directory.
            None: those of ``inner``.

    Raises:
        InputError: When called: no such layer, a network that cannot be cut there, inputs of another shape than the
            layer's outputs, or weights of another network.

    Example:
        >>> from fishr.models import MLP
        >>> above = LayersAbove(MLP(widths=(5, 4)), at="2", inputs=(2, 8, 8))
        >>> above((5,), torch.Generator().manual_seed(0))(torch.zeros(3, 5)).shape, above.features((5,))
        (torch.Size([3, 4]), 4)
    """

    inner: Featurizer
    at: str = field(validator=text_line)
    inputs: tuple[int, ...] = field(validator=deep_iterable(whole(1)))
    weights: str | None = None

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from the layer's outputs [N, *shape] to features [N, F]; the generator does not advance."""
        inner = self.inner if self.weights is None else without_weights(self.inner)
        network = inner(self.inputs, generator.clone_state())
        below, above, outputs = cut(network, self.at, self.inputs)
        if (expected := tuple(outputs.shape[1:])) != shape:
            raise InputError(
                f"featurizer: got inputs of shape {shape}, expected the outputs of {self.at}, {expected}; train on a "
                "file that `fishr cache features --at` wrote of this network"
            )
        module = SplitFeaturizer(above)
        if self.weights is None:
            module.below_sha256 = weights_digest(below)
        else:
            _fill(above, module_name(network, self.at), typed_path(self.weights))
        return module

    def features(self, shape: tuple[int, ...]) -> int:
        """Return F, the number of features."""
        return self.inner.features(self.inputs)

    def without_weights(self) -> "LayersAbove":
        """Return the same layers with random weights."""
        return evolve(self, inner=without_weights(self.inner), weights=None)


def cut(network: nn.Module, at: str, shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a network below and above a layer, and the layer's outputs of two random inputs."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    probe = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    return split_at(network, at, probe)


def _fill(module: nn.Module, layer: str, path: Path) -> None:
    from fishr.data.caches import open_activations

    cache = open_activations(path)
    if cache.at != layer:
        raise InputError(f"featurizer: {path} has the layers above {cache.at!r}, expected those above {layer!r}")
    given = {name: torch.from_numpy(value) for name, value in cache.weights.items()}
    load_weights(module, given, f"featurizer: {path}", "give the featurizer that the file was made with")
