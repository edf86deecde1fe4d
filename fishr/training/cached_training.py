"""An experiment's head trained on cached features in place of its data and featurizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from fishr.data.cached import CachedFeatures, provenance_texts
from fishr.errors import InputError
from fishr.models.featurizers import MLP
from fishr.training.experiment import Experiment

# What says the same at greater length, and what the features do not depend on.
_FREE = ("experiment", "created", "device")


def on_features(
    experiment: Experiment, path: Path, key: str, provenance: Mapping[str, object], data: Any, seed: int
) -> Experiment:
    """The experiment with nothing before its head, on a file of features of its own data.

    Head, loss, objective, optimizer, batches and steps stay. Its training ends in the same bits as one through
    ``Frozen`` with the featurizer that the features were computed with.

    Args:
        experiment: whose head is to be trained.
        path: of the features.
        key: theirs, which a run that is resumed will expect.
        provenance: what else it will expect, to say what differs where the key does.
        data: the data settings that they were computed from.
        seed: likewise.

    Returns:
        An experiment whose data are the features.

    Raises:
        InputError: the features are of other data or of another seed than the experiment's.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> recipe = colored_digits()
        >>> on_features(recipe, Path("digits.h5"), "6b86b2", {}, recipe.data, recipe.seed).featurizer
        MLP(widths=())
        >>> on_features(recipe, Path("digits.h5"), "6b86b2", {}, recipe.data, seed=5)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: digits.h5: its features are of seed = 5, the experiment has 0; \
cache the features of the experiment's own data, or change the experiment
    """
    for name, theirs, ours in [*_differences(data, experiment.data), ("seed", seed, experiment.seed)]:
        if theirs != ours:
            raise InputError(
                f"{path}: its features are of {name} = {theirs!r}, the experiment has {ours!r}; "
                "cache the features of the experiment's own data, or change the experiment"
            )
    expected = {name: text for name, text in provenance_texts(provenance).items() if name not in _FREE}
    features = CachedFeatures(str(path.absolute()), key, expected)
    return attrs.evolve(experiment, data=features, featurizer=MLP(widths=()))


def _differences(theirs: Any, ours: Any) -> list[tuple[str, object, object]]:
    if type(theirs) is not type(ours):
        return [("data.kind", type(theirs).__name__, type(ours).__name__)]
    names = [field.name for field in attrs.fields(type(ours))]
    return [(f"data.{name}", getattr(theirs, name), getattr(ours, name)) for name in names]
