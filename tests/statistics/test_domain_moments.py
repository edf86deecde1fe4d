"""Second moment and unbiased variance against torch's own."""

import pytest
import torch
from cases import FLOAT64
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.statistics.domain_moments import GradientMoments
from fishr.types import Layout


def test_moments_are_related_as_their_names_say() -> None:
    samples = torch.randn(3, 4, dtype=FLOAT64, requires_grad=True)
    moments = GradientMoments(
        (3,), samples.mean(0)[None], samples.var(0, unbiased=False)[None], Layout(("w",), ((4,),))
    )
    assert_close(moments.second_moment[0], samples.square().mean(0))
    assert_close(moments.unbiased_variance[0], samples.var(0))
    assert moments.second_moment.requires_grad
    assert not moments.detach().variance.requires_grad
    assert moments.detach().layout is moments.layout


def test_the_unbiased_variance_of_one_sample_is_refused() -> None:
    moments = GradientMoments((3, 1), torch.zeros(2, 1), torch.zeros(2, 1), Layout(("w",), ((1,),)))
    with pytest.raises(InputError, match=r"got \(3, 1\), expected at least 2 samples"):
        moments.unbiased_variance  # noqa: B018
