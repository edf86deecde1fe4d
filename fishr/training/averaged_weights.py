"""The weights of a state that a run averages, evaluates, exports and analyzes."""

from torch import Tensor

from fishr.training.experiment import Experiment
from fishr.training.model import Model
from fishr.training.state import TrainingState, moving_weights, with_weights


def averaged_weights(model: Model, experiment: Experiment, state: TrainingState) -> dict[str, Tensor] | None:
    """Return the weights that the experiment's average evaluates, by name; None without an average."""
    if experiment.average is None or state.average is None:
        return None
    return experiment.average.weights(state.average, moving_weights(model, state.parameters, state.buffers))


def averaged(model: Model, experiment: Experiment, state: TrainingState) -> TrainingState:
    """Return the state with the weights that the experiment's average evaluates, and without the average's state."""
    found = averaged_weights(model, experiment, state)
    return state if found is None else with_weights(state, found)
