"""Updates of layers that learn at rates of their own: the optimizer on each group of parameters, as torch's groups."""

from collections.abc import Collection, Mapping
from typing import Any

import attrs
from torch import Tensor

from fishr.checks import nearest_layers
from fishr.errors import InputError
from fishr.training.experiment import MODEL, Experiment
from fishr.training.optimizers import updated


def layers_of(experiment: Experiment, names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of trained parameters by the longest layer of ``lr_factors`` that they are below, or MODEL."""
    layers = experiment.lr_factors or {}
    above = {name: [layer for layer in layers if f"{name}.".startswith(f"{layer}.")] for name in names}
    for layer in layers:
        if all(layer not in found for found in above.values()):
            raise InputError(
                f"lr_factors: got {layer!r}, which no trained parameter has in its name; "
                f"expected the name of a layer or a parameter, such as {nearest_layers(layer, names)}"
            )
    nearest = {name: max(found, key=len, default=MODEL) for name, found in above.items()}
    return {layer: tuple(name for name in names if nearest[name] == layer) for layer in dict.fromkeys(nearest.values())}


def first_memory(experiment: Experiment, weights: Mapping[str, Tensor]) -> Any:
    """Return the optimizer's state before the first update of weights by name; with ``lr_factors``, by layer."""
    if experiment.lr_factors is None:
        return experiment.optimizer.init(tuple(weights.values()))
    layers = layers_of(experiment, weights).items()
    return {layer: experiment.optimizer.init(tuple(weights[name] for name in names)) for layer, names in layers}


def update_layers(
    experiment: Experiment,
    gradients: Mapping[str, Tensor | None],
    memory: Any,
    weights: Mapping[str, Tensor],
    step: int,
) -> tuple[dict[str, Tensor], Any]:
    """Return weights by name after an update at a step, and the optimizer's next state."""
    rates, moved, memories = experiment.learning_rates(step), dict[str, Tensor](), dict[str, Any]()
    for layer, names in layers_of(experiment, weights).items():
        before = tuple(weights[name] for name in names)
        # At a rate of 0 the optimizer's state goes on as at any other.
        rate: Any = rates.get(layer)
        optimizer = attrs.evolve(experiment.optimizer, lr=rate) if rate else experiment.optimizer
        held = memory if experiment.lr_factors is None else memory[layer]
        after, memories[layer] = updated(optimizer, tuple(gradients[name] for name in names), held, before)
        moved |= dict(zip(names, before if rate == 0 else after, strict=True))
    return moved, memories[MODEL] if experiment.lr_factors is None else memories


def changed_rates(experiment: Experiment, step: int) -> dict[str, float] | None:
    """Return the learning rates by layer at a step where they differ from those of the step before, else None."""
    rates = experiment.learning_rates(step)
    return rates if rates and (step == 0 or rates != experiment.learning_rates(step - 1)) else None
