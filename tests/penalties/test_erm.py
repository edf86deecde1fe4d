"""The two averages of the loss, which differ for uneven domains."""

import pytest
import torch
from torch import nn

from fishr.errors import InputError
from fishr.observation import observe
from fishr.penalties import ERM
from fishr.types import DomainBatch, Problem


def test_both_forms_on_uneven_domains() -> None:
    """Squared losses 1 | 4, 9, 16: the mean of the domains' means is (1 + 29/3)/2 = 16/3, that of samples 30/4."""
    batch = DomainBatch(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.zeros(4, 1), (1, 3))
    seen = observe(nn.Identity(), nn.Identity(), batch, lambda f, y: (f - y).square().sum(1))
    assert ERM()(seen, (), 0)[0].item() == pytest.approx(16 / 3)
    assert ERM("samples")(seen, (), 0)[0].item() == pytest.approx(7.5)
    assert ERM().init(Problem.of(nn.Linear(1, 1), 1)) == ()


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(InputError, match="over: got 'classes', expected 'domains' or 'samples'"):
        ERM("classes")  # type: ignore[arg-type]
