"""Fishr: a golden value by hand, the definition by loops, fused equals generic, and its effect on training."""

import itertools
from typing import Any

import pytest
import torch
from attrs import evolve
from cases import (
    EXACT,
    FLOAT64,
    HEADS,
    INDICES,
    SIZES,
    Featurizer,
    derivatives,
    oracle_gradients,
    oracle_moments,
    slow_but,
)
from loss_cases import LOSSES
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.observation import observe
from fishr.penalties import Average, Fishr
from fishr.types import DomainBatch, Problem


def test_golden_value_by_hand() -> None:
    """One weight w = 0 without bias under the logistic loss: σ(0) = ½, so that g = (½ − y)·z.

    Domain 1: z = 2, 6 with y = 0, 0: g = 1, 3, mean 2, variance 1, second moment 5.
    Domain 2: z = 2, 4 with y = 1, 0: g = −1, 2, mean ½, variance 9/4, second moment 5/2.
    Distance of 1 and 9/4 to their mean 13/8: (5/8)² = 25/64, twice, over K = 2: 25/64; of 5 and 5/2: (5/4)² = 25/16.
    Unbiased variances 2 and 9/2: (5/4)² = 25/16. With P = 1 the covariance is the variance.
    """
    head = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(head.weight)
    batch = DomainBatch(torch.tensor([[2.0], [6.0], [2.0], [4.0]]), torch.tensor([0, 0, 1, 0]), (2, 2))
    for route in ("closed_form", "backpack", "functional"):
        seen = observe(nn.Identity(), head, batch, LOSSES["binary"].loss, route)
        assert Fishr()(seen, (), 0)[0].item() == pytest.approx(25 / 64)
        assert Fishr("second_moment")(seen, (), 0)[0].item() == pytest.approx(25 / 16)
        assert Fishr(unbiased=True)(seen, (), 0)[0].item() == pytest.approx(25 / 16)
        assert Fishr("covariance")(seen, (), 0)[0].item() == pytest.approx(25 / 64)
        assert Fishr(over_domains="sum")(seen, (), 0)[0].item() == pytest.approx(25 / 32)
        # Divided by the square of the mean, (13/8)² and (15/4)².
        for statistic, expected in (("variance", 25 / 169), ("covariance", 25 / 169), ("second_moment", 1 / 9)):
            free = Fishr(statistic, distance="scale_free")
            assert free(seen, (), 0)[0].item() == pytest.approx(expected)
            assert evolve(free, over_domains="sum")(seen, (), 0)[0].item() == pytest.approx(2 * expected)


def test_the_irm_scripts_convention_by_hand() -> None:
    """As above with a bias, whose g = ½ − y is ½, ½ | −½, ½ with variances 0 and ¼: its share is 2·(1/8)² = 1/32.

    Sum over parameters and domains: 25/32 + 1/32 = 26/32; DomainBed's mean over both: that over P·K = 4.
    """
    head = nn.Linear(1, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    batch = DomainBatch(torch.tensor([[2.0], [6.0], [2.0], [4.0]]), torch.tensor([0, 0, 1, 0]), (2, 2))
    seen = observe(nn.Identity(), head, batch, LOSSES["binary"].loss)
    assert Fishr(over_parameters="sum", over_domains="sum")(seen, (), 0)[0].item() == pytest.approx(26 / 32)
    assert Fishr()(seen, (), 0)[0].item() == pytest.approx(26 / 128)


@pytest.mark.filterwarnings(INDICES)
@pytest.mark.parametrize("sizes", slow_but((1, 5, 2), [s for s in SIZES if len(s) > 1]))
@pytest.mark.parametrize("loss_name", slow_but("cross-entropy", LOSSES))
@pytest.mark.parametrize("head_name", HEADS)
def test_the_penalty_is_the_oracles_on_every_route(head_name: str, loss_name: str, sizes: tuple[int, ...]) -> None:
    case, task = HEADS[head_name], LOSSES[loss_name]
    featurizer = nn.Identity() if case.indices else Featurizer(case.shape)
    head, batch = case.head(task.outputs), DomainBatch(case.inputs(sum(sizes)), task.labels(sum(sizes)), sizes)
    moments = oracle_moments(head, featurizer(batch.inputs), batch.labels, sizes, task.loss)
    views = [observe(featurizer, head, batch, task.loss, route) for route in case.routes]
    for name, statistic in {"variance": moments.variance, "second_moment": moments.second_moment}.items():
        expected = ((statistic - statistic.mean(0)) ** 2).mean()
        by_expected = derivatives(expected, featurizer, head)
        for seen in views:
            found, _ = Fishr(name)(seen, (), 0)
            assert_close(found, expected, **EXACT)
            assert_close(derivatives(found, featurizer, head), by_expected, **EXACT)
    if max(sizes) > 1:
        assert found > 1e-12


@pytest.mark.parametrize("head_name", ["linear", "linear without bias", "two layers", "conv1d"])
@pytest.mark.parametrize("parameters", ["mean", "sum"])
@pytest.mark.parametrize("domains", ["mean", "sum"])
def test_the_covariance_is_that_of_whole_matrices(head_name: str, parameters: str, domains: str) -> None:
    case, sizes = HEADS[head_name], (3, 1, 4)
    featurizer, head = Featurizer(case.shape), case.head(2)
    batch = DomainBatch(case.inputs(8), torch.randint(2, (8,)), sizes)
    gradients = oracle_gradients(head, featurizer(batch.inputs), batch.labels, CrossEntropy())
    centered = [g - g.mean(0) for g in gradients.split(list(sizes))]
    whole = torch.stack([g.T @ g / len(g) for g in centered])
    squares = (whole - whole.mean(0)).square().sum() / (3 if domains == "mean" else 1)
    penalty = Fishr("covariance", over_parameters=parameters, over_domains=domains)
    for made, by in (
        (penalty, whole[0].numel() if parameters == "mean" else 1),
        (evolve(penalty, distance="scale_free"), whole.mean(0).square().sum()),
    ):
        expected, (found, _) = squares / by, made(observe(featurizer, head, batch), (), 0)
        assert_close(found, expected, **EXACT)
        assert_close(derivatives(found, featurizer, head), derivatives(expected, featurizer, head), **EXACT)


GENERIC = list(
    itertools.product(
        ["variance", "second_moment"],
        [0.0, 0.9],
        ["unit_gradient", "debiased", "none"],
        ["mean", "sum"],
        ["mean", "sum"],
        [False, True],
        ["squared", "scale_free"],
    )
)


@pytest.mark.slow
@pytest.mark.parametrize("head_name", ["linear", "linear without bias", "three layers"])
def test_fused_is_generic_is_the_loop_over_steps_and_options(head_name: str) -> None:
    """Three steps of every combination: the fused path, the plain one, and the moving average written out."""
    sizes, featurizer, head = (2, 5, 3), Featurizer((3,)), HEADS[head_name].head(2)
    batches = [DomainBatch(torch.randn(10, 3, dtype=FLOAT64), torch.randint(2, (10,)), sizes) for _ in range(3)]
    moments = [oracle_moments(head, featurizer(b.inputs), b.labels, sizes, CrossEntropy()) for b in batches]
    checked = 0
    for statistic, ema, gain, parameters, domains, unbiased, distance in GENERIC:
        if unbiased and statistic != "variance":
            continue
        penalty = Fishr(statistic, ema, gain, parameters, domains, unbiased, distance)
        fused_state = generic_state = penalty.init(Problem.of(head, 3))
        average: Tensor = torch.zeros(())
        for t, (batch, exact) in enumerate(zip(batches, moments, strict=True), start=1):
            fused, fused_state = penalty(observe(featurizer, head, batch), fused_state, t)
            generic, generic_state = penalty(observe(featurizer, head, batch, route="backpack"), generic_state, t)
            v = exact.unbiased_variance if unbiased else getattr(exact, statistic)
            if ema:
                v = ema * average + (1 - ema) * v
                average = v.detach()
                v = v / {"unit_gradient": 1 - ema, "debiased": 1 - ema**t, "none": 1.0}[gain]
            squares = (v - v.mean(0)).square().sum()
            by = v.mean(0).square().sum() if distance == "scale_free" else v.shape[1] if parameters == "mean" else 1
            expected = squares / by / (3 if domains == "mean" else 1)
            for found in (fused, generic):
                assert_close(found, expected, **EXACT)
            by_expected = derivatives(expected, featurizer, head)
            for found in (fused, generic):
                assert_close(derivatives(found, featurizer, head), by_expected, **EXACT)
            if ema:
                assert fused_state.updates == generic_state.updates == t
                for state in (fused_state, generic_state):
                    assert_close(state.value, average, **EXACT)
                    assert not state.value.requires_grad
        checked += 1
    assert checked == 144


def test_a_call_changes_neither_state_nor_parameters() -> None:
    head = nn.Linear(3, 2)
    batch, penalty = DomainBatch(torch.randn(8, 3), torch.randint(2, (8,)), (4, 4)), Fishr(ema=0.9)
    _, state = penalty(observe(nn.Identity(), head, batch), penalty.init(Problem.of(head, 2)), 0)
    value, before = state.value.clone(), [p.clone() for p in head.parameters()]
    first, _ = penalty(observe(nn.Identity(), head, batch), state, 1)
    second, _ = penalty(observe(nn.Identity(), head, batch), state, 1)
    first.backward()
    assert first == second
    assert_close(state.value, value)
    assert_close([p.detach() for p in head.parameters()], before)


@pytest.mark.parametrize("statistic", ["variance", "second_moment", "covariance"])
@pytest.mark.parametrize(
    "head", [lambda: nn.Linear(4, 2), lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))]
)
def test_descending_on_the_penalty_alone_brings_the_domains_together(statistic: str, head: Any) -> None:
    """With weights frozen in size the variances could not shrink together only; here it is the distance that falls."""
    featurizer, head = nn.Linear(3, 4), head()
    inputs = torch.cat([torch.randn(20, 3), 3 * torch.randn(20, 3) + 1])
    batch = DomainBatch(inputs, torch.randint(2, (40,)), (20, 20))
    optimizer = torch.optim.SGD([*featurizer.parameters(), *head.parameters()], lr=0.02)
    values = []
    for _ in range(30):
        value, _ = Fishr(statistic, over_parameters="sum")(observe(featurizer, head, batch), (), 0)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_([*featurizer.parameters(), *head.parameters()], 1.0)
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


@pytest.mark.parametrize("statistic", ["variance", "second_moment", "covariance"])
@pytest.mark.parametrize("route", ["closed_form", "backpack"])
def test_a_scale_free_penalty_does_not_depend_on_the_scale_of_loss_and_features(route: Any, statistic: str) -> None:
    head, penalty = nn.Linear(3, 2, bias=False).to(FLOAT64), Fishr(statistic, distance="scale_free")
    inputs, labels = torch.randn(9, 3, dtype=FLOAT64), torch.randint(2, (9,))
    values = []
    for scale in (1.0, 1e-3, 1e4):
        # The logits, and so the derivatives by them, stay the same.
        larger = nn.Linear(3, 2, bias=False).to(FLOAT64)
        larger.weight.data = head.weight.data / scale
        batch = DomainBatch(inputs * scale, labels, (4, 5))
        values.append(penalty(observe(nn.Identity(), larger, batch, route=route), (), 0)[0])
    assert values[0] > 1e-3
    assert_close(values[1:], [values[0]] * 2, **EXACT)


@pytest.mark.parametrize("route", ["closed_form", "backpack"])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-3])
def test_a_scale_free_penalty_of_statistics_below_rounding_is_zero_and_finite_of_small_ones(
    route: Any, scale: float
) -> None:
    featurizer, head = nn.Linear(3, 4), nn.Linear(4, 2)
    nn.init.zeros_(head.weight)
    # Features that are nearly or wholly zero, without the bias's share.
    head.bias = None
    batch = DomainBatch(torch.randn(9, 3), torch.randint(2, (9,)), (4, 5))

    def features(inputs: Tensor) -> Tensor:
        return scale**2 * featurizer(inputs)

    value, _ = Fishr(distance="scale_free")(observe(features, head, batch, route=route), (), 0)
    gradients = torch.autograd.grad(1e4 * value, [head.weight, featurizer.weight])
    assert all(g.isfinite().all() for g in gradients)
    assert (value > 0) == (scale == 1e-3)
    assert any(g.any() for g in gradients) == (scale == 1e-3)


def test_scale_free_variances_of_one_sample_are_refused() -> None:
    seen = observe(nn.Identity(), nn.Linear(3, 2), DomainBatch(torch.randn(2, 3), torch.tensor([0, 1]), (1, 1)))
    with pytest.raises(InputError, match="with one sample of each domain"):
        Fishr(distance="scale_free")(seen, (), 0)
    assert Fishr("second_moment", distance="scale_free")(seen, (), 0)[0] > 0


def test_domains_that_agree_have_no_penalty_and_no_gradient() -> None:
    inputs, labels, featurizer, head = torch.randn(4, 3), torch.randint(2, (4,)), nn.Linear(3, 3), nn.Linear(3, 2)
    batch = DomainBatch(inputs.repeat(2, 1), labels.repeat(2), (4, 4))
    value, _ = Fishr()(observe(featurizer, head, batch), (), 0)
    value.backward()
    assert value == 0
    assert featurizer.weight.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Fishr("covariance", ema=0.9), 'ema: got 0.9 with statistic "covariance"'),
        (lambda: Fishr("second_moment", unbiased=True), "unbiased: got true"),
        (lambda: Fishr(ema=1.0), "ema: got 1.0"),
        (lambda: Fishr(gain="twice"), "gain: got 'twice'"),
        (lambda: Fishr("kurtosis"), "statistic: got 'kurtosis', expected 'variance' or"),
        (lambda: Fishr(over_parameters="max"), "over_parameters"),
        (lambda: Fishr(over_domains="max"), "over_domains"),
        (lambda: Fishr(distance="relative"), "distance"),
        (lambda: Fishr().init(Problem.of(nn.Linear(2, 2), 1)), "Fishr: got 1 training domain, expected at least 2"),
    ],
)
def test_what_does_not_exist_is_refused(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_another_number_of_domains_than_at_the_start_is_refused() -> None:
    head, penalty = nn.Linear(3, 2), Fishr(ema=0.9)
    batch = DomainBatch(torch.randn(9, 3), torch.randint(2, (9,)), (3, 3, 3))
    for route in ("closed_form", "backpack"):
        with pytest.raises(InputError, match=r"got a statistic of shape \(3, 8\), expected \(2, 8\)"):
            penalty(observe(nn.Identity(), head, batch, route=route), penalty.init(Problem.of(head, 2)), 0)


@pytest.mark.parametrize("route", ["closed_form", "backpack"])
def test_unbiased_variances_of_one_sample_are_refused(route: str) -> None:
    batch = DomainBatch(torch.randn(4, 3), torch.randint(2, (4,)), (3, 1))
    with pytest.raises(InputError, match="at least 2 samples"):
        Fishr(unbiased=True)(observe(nn.Identity(), nn.Linear(3, 2), batch, route=route), (), 0)


def test_the_first_state_is_zeros_of_the_problem_or_nothing() -> None:
    problem = Problem.of(nn.Linear(3, 2), 2)
    state = Fishr(ema=0.5).init(problem)
    assert isinstance(state, Average)
    assert state.value.eq(0).all()
    assert Fishr().init(problem) == ()
