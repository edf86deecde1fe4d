"""Headline numbers against their definition, of the training domains alone."""

import math

import attrs
import pytest
import torch
from analysis.subjects import part

from fishr.analysis import Headline, analyze, headlines, ratio


@pytest.mark.slow
def test_they_are_of_the_training_domains(subject):
    found = headlines(analyze(subject))
    alone = headlines(analyze(part(subject, (0, 1))))
    assert found.keys() == alone.keys()
    assert {"variance_distance_scale_free", "hessian_diagonal_distance_scale_free", "gradient_cosines"} <= found.keys()
    for name, headline in found.items():
        assert headline.value == pytest.approx(alone[name].value, rel=1e-6, nan_ok=True), name


def test_against_the_definition(subject):
    analysis = analyze(subject)
    found = headlines(analysis)
    variance = analysis.quantities["gradient_variance"].value[:2]
    hessian = analysis.quantities["hessian_diagonal"].value[:2]
    for name, statistic in (("variance", variance), ("hessian_diagonal", hessian)):
        mean = (statistic[0] + statistic[1]) / 2
        distance = sum((one - mean) @ (one - mean) for one in statistic) / 2 / (mean @ mean)
        assert found[f"{name}_distance_scale_free"].value == pytest.approx(float(distance), rel=1e-9)
    cosines = [float(v @ h / (v.norm() * h.norm())) for v, h in zip(variance, hessian, strict=True)]
    assert found["variance_hessian_cosine"].value == pytest.approx(sum(cosines) / 2, rel=1e-9)
    pairs = analysis.quantities["gradient_cosines"].value
    assert found["gradient_cosines"].value == pytest.approx(float(pairs[0, 1]), rel=1e-9)
    assert found["gradient_cosines"].route == analysis.quantities["gradient_cosines"].route


def test_an_error_goes_with_its_number(subject):
    analysis = analyze(subject)
    cosine = analysis.quantities["variance_hessian_cosine"]
    known = attrs.evolve(cosine, error=torch.tensor([0.1, 0.3, 9.0], dtype=torch.float64))
    found = headlines(attrs.evolve(analysis, quantities=analysis.quantities | {cosine.name: known}))
    assert found[cosine.name].error == pytest.approx(0.2)
    assert headlines(analysis)["gradient_cosines"].error is None


def test_ratio():
    def number(value):
        return Headline("", value, None, "1", "")

    assert ratio(number(3.0), number(1.5)) == 2.0
    for one, other in ((1.0, 0.0), (0.0, 1.0), (-1.0, 2.0), (2.0, -1.0), (math.nan, 1.0)):
        assert math.isnan(ratio(number(one), number(other)))


def test_one_training_domain_has_no_pairs(subject):
    one = part(subject, (0,))
    assert "gradient_cosines" not in headlines(analyze(one))
