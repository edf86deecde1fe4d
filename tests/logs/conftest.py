"""A short run."""

import attrs
import pytest

from fishr.data.digits import ColoredDigits
from fishr.models.featurizers import MLP
from fishr.protocols import colored_digits
from fishr.training import Experiment


@pytest.fixture
def experiment() -> Experiment:
    """Seven steps, evaluated after 3, 6 and 7, with checkpoints after 2, 4, 6 and 7."""
    changed = {"steps": 7, "evaluate_every": 3, "checkpoint_every": 2}
    return attrs.evolve(colored_digits(), data=ColoredDigits(training_images=40), featurizer=MLP((4,)), **changed)
