"""The unit of each quantity: a loss and parameters in other units change its numbers as it says."""

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from fishr.diagnostics import measure
from fishr.diagnostics.registry import diagnostics

POWERS = {"²": 2, "⁴": 4, "": 1}
# The Gauss-Newton matrix is the Fisher, and the variance near the Hessian, of a loss in nats alone.
IN_NATS = {"fisher_diagonal", "variance_hessian_error"}


def powers(unit: str) -> tuple[int, int]:
    """Return the powers of the loss and of the parameters in a unit, such as 4 and −4 in (loss/parameter)⁴."""
    outer = re.fullmatch(r"\((.*)\)([²⁴])", unit)
    if outer:
        loss, parameter = powers(outer[1])
        return loss * POWERS[outer[2]], parameter * POWERS[outer[2]]
    found = {"loss": 0, "parameter": 0, "samples": 0, "1": 0}
    for sign, part in zip((1, -1), unit.split("/"), strict=False):
        name, power = re.fullmatch(r"(\w+?)([²⁴]?)", part).groups()
        found[name] += sign * POWERS[power]
    return found["loss"], found["parameter"]


@pytest.mark.parametrize("name", [name for name in diagnostics("head") if name not in IN_NATS])
def test_numbers_change_as_the_unit_says(name: str) -> None:
    """Features a third as large and weights three times as large make the same logits."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(24, 3, dtype=torch.float64, generator=generator)
    labels = torch.randint(2, (24,), generator=generator)

    def measured(loss: float, parameter: float) -> Tensor:
        head = nn.Linear(3, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            head.weight.copy_(parameter * torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3))

        def scaled(logits: Tensor, labels: Tensor) -> Tensor:
            return loss * cross_entropy(logits, labels, reduction="none")

        options = {"rho": 0.1 * parameter, "eta": 0.1 * parameter**2 / loss, "epsilon": 0.1 * loss}
        return measure(head, features / parameter, labels, (8, 16), names=(name,), loss=scaled, seed=0, **options)[
            name
        ].value

    unit = diagnostics()[name].unit
    for loss, parameter in ((3.0, 1.0), (1.0, 3.0)):
        expected = measured(1.0, 1.0)
        if unit == "loss/parameter² and parameter²/loss":
            expected = torch.stack([expected[:, 0] * loss / parameter**2, expected[:, 1] * parameter**2 / loss], 1)
        else:
            of_loss, of_parameter = powers(unit)
            expected = expected * loss**of_loss * parameter**of_parameter
        assert_close(measured(loss, parameter), expected, rtol=1e-6, atol=1e-9, equal_nan=True)
