"""The optimizer of a run in one step: at the step's learning rates, on each layer's parameters, as torch's groups."""

from collections.abc import Collection, Mapping
from typing import Any

import attrs
from attrs import frozen
from torch import Tensor

from fishr.checks import nearest_layers
from fishr.errors import InputError
from fishr.training.experiment import MODEL, Experiment
from fishr.training.optimizers import clipped, updated


def by_layer(layers: Collection[str], names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of trained parameters by the longest of the layers that they are below, or MODEL."""
    above = {name: [layer for layer in layers if f"{name}.".startswith(f"{layer}.")] for name in names}
    for layer in layers:
        if all(layer not in found for found in above.values()):
            raise InputError(
                f"lr_factors: got {layer!r}, which no trained parameter has in its name; "
                f"expected the name of a layer or a parameter, such as {nearest_layers(layer, names)}"
            )
    nearest = {name: max(found, key=len, default=MODEL) for name, found in above.items()}
    return {layer: tuple(name for name in names if nearest[name] == layer) for layer in dict.fromkeys(nearest.values())}


@frozen
class StepOptimizer:
    """See ``fishr.descents.NamedOptimizer``; with ``lr_factors``, the state is one of the optimizer by layer."""

    experiment: Experiment
    step: int

    def init(self, weights: Mapping[str, Tensor]) -> Any:
        if self.experiment.lr_factors is None:
            return self.experiment.optimizer.init(tuple(weights.values()))
        optimizer, layers = self.experiment.optimizer, by_layer(self.experiment.lr_factors, weights)
        return {layer: optimizer.init(tuple(weights[name] for name in names)) for layer, names in layers.items()}

    @property
    def fresh(self) -> bool:
        """Whether the optimizer's state is reset before this step's update."""
        at = self.experiment.objective.fresh_optimizer_at
        return self.step in at if isinstance(at, tuple) else self.step == at

    def update(
        self, gradients: Mapping[str, Tensor | None], memory: Any, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Any]:
        if all(gradient is None for gradient in gradients.values()):
            return dict(weights), memory
        experiment, moved, memories = self.experiment, dict[str, Tensor](), dict[str, Any]()
        if experiment.clip_norm is not None:
            limited = clipped(tuple(gradients.values()), experiment.clip_norm)
            gradients = dict(zip(gradients, limited, strict=True))
        rates = experiment.learning_rates(self.step)
        for layer, names in by_layer(experiment.lr_factors or (), weights).items():
            before = tuple(weights[name] for name in names)
            # At a rate of 0 the optimizer's state goes on as at any other.
            rate: Any = rates.get(layer)
            optimizer = attrs.evolve(experiment.optimizer, lr=rate) if rate else experiment.optimizer
            held = memory if experiment.lr_factors is None else memory[layer]
            after, memories[layer] = updated(optimizer, tuple(gradients[name] for name in names), held, before)
            moved |= dict(zip(names, before if rate == 0 else after, strict=True))
        return moved, memories[MODEL] if experiment.lr_factors is None else memories

    @property
    def changed_rates(self) -> dict[str, float] | None:
        """The learning rates by layer where they differ from those of the step before, else None."""
        rates = self.experiment.learning_rates(self.step)
        return rates if rates and (self.step == 0 or rates != self.experiment.learning_rates(self.step - 1)) else None
