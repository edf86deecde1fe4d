"""ERM++ and LP-FT: the head alone at a rate of its own, then everything, with a new optimizer."""

import attrs
import pytest
import torch

from fishr.errors import InputError
from fishr.models import TimmBackbone
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.training.learning_rates import StepOptimizer

# Rate of the head alone, and the first step in which all weights are trained.
PHASES = {"ERMPlusPlus": ("linear_lr", "linear_steps", 5), "LP_FT": ("lp_lr", "lp_steps", 4)}


@pytest.mark.parametrize("algorithm", PHASES)
def test_phases(algorithm: str) -> None:
    rate, steps, first = PHASES[algorithm]
    settings = Settings(hparams={"lr": 3e-4, rate: 2e-3, steps: 4})
    made = Job("RotatedMNIST", algorithm, (0,), 0, 0, settings).experiment()
    for step in range(8):
        rates = made.learning_rates(step)
        assert rates["featurizer"] == (0.0 if step < first else 3e-4)
        assert rates["head"] == pytest.approx(2e-3 if step < first else 3e-4)
        assert StepOptimizer(made, step).fresh == (step == first)
    assert (made.average is None) == (algorithm == "LP_FT")


@pytest.mark.parametrize("algorithm", PHASES)
def test_without_a_network_there_is_no_second_phase(algorithm: str) -> None:
    """Heads on cached features are refused; layers above a cached one train in the second phase."""
    settings = Settings(features={"PACS": "features.h5"}, featurizer=TimmBackbone("test_resnet", pretrained=False))
    with pytest.raises(InputError, match=f"^lr_factors: got a factor .* {algorithm} .* on cached features"):
        Job("PACS", algorithm, (0,), 0, 0, settings).experiment()
    above = attrs.evolve(settings, features_at="layer3")
    made = Job("PACS", algorithm, (0,), 0, 0, above).experiment()
    assert made.learning_rates(0)["featurizer"] == 0
    module = made.featurizer((192, 14, 14), torch.Generator())
    assert all(name.startswith("above.") for name, _ in module.named_parameters())
