"""Both forms by hand, and against loops."""

import itertools

import pytest
import torch
from cases import EXACT, FLOAT64
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.observation import Observation, observe
from fishr.penalties import VREx
from fishr.types import DomainBatch, Problem


def seen_of(inputs: Tensor, sizes: tuple[int, ...]) -> Observation:
    """The loss of a sample is its input."""
    batch = DomainBatch(inputs, torch.zeros(len(inputs)), sizes)
    return observe(nn.Identity(), nn.Identity(), batch, lambda f, y: f.squeeze(1))


def test_golden_values() -> None:
    """Risks 1, 2 and 6: variance ((1−3)² + (2−3)² + (6−3)²)/3 = 14/3, over pairs 1 + 25 + 16 = 42."""
    seen = seen_of(torch.tensor([[1.0], [1.0], [3.0], [6.0]]), (1, 2, 1))
    assert VREx()(seen, (), 0)[0].item() == pytest.approx(14 / 3)
    assert VREx("pairwise")(seen, (), 0)[0].item() == pytest.approx(42)


def test_pairwise_of_two_domains_is_the_squared_difference_of_risks() -> None:
    seen = seen_of(torch.tensor([[1.0], [4.0]]), (1, 1))
    assert VREx("pairwise")(seen, (), 0)[0].item() == 9.0


@pytest.mark.parametrize("domains", [2, 3, 5])
def test_forms_against_loops_with_gradients(domains: int) -> None:
    inputs = torch.randn(2 * domains, 1, dtype=FLOAT64, requires_grad=True)
    seen = seen_of(inputs, (2,) * domains)
    risks = inputs.view(domains, 2).mean(1)
    mean = sum(risks) / domains
    loops = {
        "variance": sum((risk - mean) ** 2 for risk in risks) / domains,
        "pairwise": sum((a - b) ** 2 for a, b in itertools.combinations(risks, 2)),
    }
    for form, expected in loops.items():
        found, _ = VREx(form)(seen, (), 0)
        assert_close(found, expected, **EXACT)
        by_found, by_expected = (torch.autograd.grad(v, [inputs], retain_graph=True) for v in (found, expected))
        assert_close(by_found, by_expected, **EXACT)


def test_a_single_domain_is_refused() -> None:
    with pytest.raises(InputError, match="VREx: got 1 training domain, expected at least 2"):
        VREx().init(Problem.of(nn.Linear(2, 2), 1))
    assert VREx().init(Problem.of(nn.Linear(2, 2), 2)) == ()
