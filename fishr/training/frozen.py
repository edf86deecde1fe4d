"""A featurizer that keeps the weights it begins with: those of another run, or the seed's first ones."""

from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.models.featurizers import Featurizer
from fishr.models.frozen import FrozenFeaturizer
from fishr.paths import typed_path
from fishr.training.checkpoint_path import checkpoint_of
from fishr.training.stored import read_checkpoint

_PREFIX = "featurizer."


@frozen
class Frozen:
    """Featurizer that does not learn: eval mode, no graph, each row to the same bits in any batch.

    Its weights are part of the training state like all others, so a checkpoint holds them. It draws nothing from
    the generator, so that the head starts as it would on cached features.

    Args:
        inner: the featurizer it is, as in the run that its weights come from.
        weights: a run folder or a checkpoint with trained weights; a relative path starts at the working
            directory. None: the seed's first weights.

    Raises:
        InputError: when called, no such checkpoint, or one of another featurizer.

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

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Module from inputs [N, *shape] to features [N, F]; the generator stays as it is."""
        own = torch.Generator(generator.device)
        own.set_state(generator.get_state())
        module = self.inner(shape, own)
        if self.weights is not None:
            _fill(module, typed_path(self.weights))
        return FrozenFeaturizer(module)

    def features(self, shape: tuple[int, ...]) -> int:
        """F, the number of features for inputs [N, *shape]."""
        return self.inner.features(shape)


def _fill(module: nn.Module, path: Path) -> None:
    if not path.exists():
        raise InputError(f"featurizer: {path}: no such run folder or checkpoint; train it first, or give its path")
    file = checkpoint_of(path) if path.is_dir() else path
    tree = read_checkpoint(file)
    found: dict[str, Tensor] = {**tree["parameters"], **tree["buffers"]}
    given = {name.removeprefix(_PREFIX): value for name, value in found.items() if name.startswith(_PREFIX)}
    own = module.state_dict()
    for name in dict.fromkeys([*own, *given]):
        got, expected = (tuple(part[name].shape) if name in part else "none" for part in (given, own))
        if got != expected:
            raise InputError(
                f"featurizer: {file} has shape {got} for {name}, expected {expected}; "
                "give the featurizer that the run was trained with"
            )
    module.load_state_dict(given)
