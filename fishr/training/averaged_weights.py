"""The weights of a state that a run averages, evaluates, exports and analyzes."""

from attrs import evolve
from torch import Tensor

from fishr.tensor_trees import restored
from fishr.training.experiment import Experiment
from fishr.training.model import Model
from fishr.training.state import TrainingState, moving_weights


def averaged(model: Model, experiment: Experiment, state: TrainingState) -> TrainingState:
    """Return the state with the weights that the experiment's average evaluates, and without the average's state."""
    if experiment.average is None or state.average is None:
        return state
    own = moving_weights(model, state.parameters, state.buffers)
    # In a state that was loaded without a template, records are dicts.
    memory = restored(state.average, experiment.average.init(own), "average")
    found: dict[str, Tensor] = experiment.average.weights(memory, own)
    return evolve(
        state,
        parameters={name: found.get(name, value) for name, value in state.parameters.items()},
        buffers={name: found.get(name, value) for name, value in state.buffers.items()},
        average=None,
    )
