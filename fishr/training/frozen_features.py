"""Heads on features that do not change: the frozen featurizer, features of whole domains, training on cached ones."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.data.cached_features import CachedFeatures, provenance_texts
from fishr.data.domains import Domain
from fishr.data.reading import chunks
from fishr.errors import InputError
from fishr.mixed_samples import refuse_mixed_samples
from fishr.models.featurizers import MLP, Featurizer, published_preprocessing, without_weights
from fishr.models.frozen import FrozenFeaturizer, block_of, features_by_block, in_blocks
from fishr.models.weight_files import load_weights
from fishr.paths import typed_path
from fishr.statistics.moments import at_least_float32
from fishr.training.checkpoints import load
from fishr.training.experiment import Experiment
from fishr.training.model import Model, evaluating, place
from fishr.training.run_folder import checkpoint_of
from fishr.training.state import TrainingState

if TYPE_CHECKING:
    from fishr.data.images.preprocessing import Preprocessing
    from fishr.training.layers_above import LayersAbove

_PREFIX = "featurizer."


@frozen
class Frozen:
    """Featurizer with constant weights, in eval mode and without a graph; features are bit-identical in any batch.

    The weights are part of the training state, so a checkpoint holds them. The generator does not advance, so that the
    head starts as it would on cached features. With ``at``, the layers above that one train.

    Args:
        inner: The featurizer, as in the run that the weights come from.
        weights: A run folder or a checkpoint; relative to the working directory. Of a run that averages its weights,
            those of the average. None: the seed's first weights.
        at: Name of the highest frozen layer, or its end where that is unique, such as "blocks.4"; None: all layers are
            frozen. Modules around the layer are traced by torch.fx.

    Raises:
        InputError: When called: no such checkpoint, or one of another featurizer; no such layer, or one at which the
            network cannot be cut, such as inside a residual block.

    Example:
        >>> from fishr.models import MLP
        >>> frozen = Frozen(MLP(widths=(5,)))
        >>> featurizer = frozen((2, 8, 8), torch.Generator().manual_seed(0))
        >>> featurizer(torch.zeros(3, 2, 8, 8)).requires_grad, frozen.features((2, 8, 8))
        (False, 5)
        >>> Frozen(MLP(), weights="nowhere")((3,), torch.Generator())
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: featurizer: nowhere: no such run folder or checkpoint; train it first, or give its path
    """

    inner: Featurizer
    weights: str | None = None
    at: str | None = None

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from inputs [N, *shape] to features [N, F]; the generator does not advance."""
        module = self.inner(shape, generator.clone_state())
        if self.weights is not None:
            _fill(module, typed_path(self.weights))
        if self.at is None:
            return FrozenFeaturizer(module)
        # Here, because most frozen networks are not cut.
        from fishr.models.layer_split import SplitFeaturizer
        from fishr.training.layers_above import cut

        below, above, _ = cut(module, self.at, shape)
        return SplitFeaturizer(above, below)

    def features(self, shape: tuple[int, ...]) -> int:
        """Return F, the number of features for inputs [N, *shape]."""
        return self.inner.features(shape)

    def without_weights(self) -> "Frozen":
        """Return the same network with random weights."""
        return Frozen(without_weights(self.inner), at=self.at)

    def published_preprocessing(self) -> "Preprocessing | None":
        """Return that of the inner featurizer's published weights; None for those of a run."""
        return published_preprocessing(self.inner) if self.weights is None else None


def _fill(module: nn.Module, path: Path) -> None:
    if not path.exists():
        raise InputError(f"featurizer: {path}: no such run folder or checkpoint; train it first, or give its path")
    file = checkpoint_of(path) if path.is_dir() else path
    state = load(file).evaluated
    found = state.parameters | state.buffers
    given = {name.removeprefix(_PREFIX): value for name, value in found.items() if name.startswith(_PREFIX)}
    load_weights(module, given, f"featurizer: {file}", "give the featurizer that the run was trained with")


def domain_features(
    model: Model, experiment: Experiment, state: TrainingState, domain: Domain, chunk: int = 8192, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features [n, F] and logits [n, C] of a domain, float32 or wider, in order, in eval mode without a graph.

    A sample's features are bit-identical for any ``chunk`` and ``start``, and to those of training with a frozen
    featurizer; its logits are if both are multiples of 64. ``chunk`` is the largest number of rows of a pair, fewer if
    inputs are large; ``start`` is the first row. The model's modes are restored before each yield.
    """
    refuse_mixed_samples(model.featurizer, "features", "score or predict with the run instead")
    block: int | None = None
    for inputs, _ in chunks(domain, chunk, start):
        place(model, state.parameters, state.buffers)
        with torch.no_grad(), evaluating(model):
            with experiment.compute.products(), experiment.compute.autocast(inputs.device):
                block = block or block_of(model.featurizer, inputs)
                features = at_least_float32(features_by_block(model.featurizer, inputs, block))
            weights = next((p.dtype for p in model.head.parameters()), features.dtype)
            logits = at_least_float32(in_blocks(model.head, features.to(weights)))
        yield features, logits


# Redundant entries, and entries that the features do not depend on.
_FREE = ("experiment", "created", "device")


def on_features(
    experiment: Experiment,
    path: Path,
    key: str,
    provenance: Mapping[str, object],
    data: Any,
    seed: int,
    above: "LayersAbove | None" = None,
) -> Experiment:
    """Return the experiment with nothing before its head, on a file of features of its own data.

    The weights after training are bit-identical to training through ``Frozen`` with the featurizer of the features, but
    for a transform of batches, which works on the features. Images are then not augmented.

    Args:
        experiment: The experiment whose head is trained.
        path: The file of features.
        key: Its key, which a resumed run expects.
        provenance: Entries that a resumed run expects too, to name what differs if the key does.
        data: The data settings that the features were computed from.
        seed: The seed that they were computed with.
        above: The layers before the head, of a file of a layer's outputs; None: a file of features.

    Raises:
        InputError: The features are of other data or of another seed than the experiment's.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> recipe = colored_digits()
        >>> on_features(recipe, Path("digits.h5"), "6b86b2", {}, recipe.data, recipe.seed).featurizer
        MLP(widths=())
    """
    for name, theirs, ours in [*_differences(data, experiment.data), ("seed", seed, experiment.seed)]:
        if theirs != ours:
            raise InputError(
                f"{path}: its features are of {name} = {theirs!r}, the experiment has {ours!r}; "
                "cache the features of the experiment's own data, or change the experiment"
            )
    expected = {name: text for name, text in provenance_texts(provenance).items() if name not in _FREE}
    features = CachedFeatures(str(path.absolute()), key, expected, at=None if above is None else above.at)
    return attrs.evolve(experiment, data=features, featurizer=above or MLP(widths=()))


def _differences(theirs: Any, ours: Any) -> list[tuple[str, object, object]]:
    if inspect.isfunction(ours):
        return [("data", theirs, ours)]
    if type(theirs) is not type(ours):
        return [("data.kind", type(theirs).__name__, type(ours).__name__)]
    names = [field.name for field in attrs.fields(type(ours))]
    return [(f"data.{name}", getattr(theirs, name), getattr(ours, name)) for name in names]
