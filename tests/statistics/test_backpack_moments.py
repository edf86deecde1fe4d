"""What the BackPACK route leaves untouched, works with, and refuses; one test for each promise."""

import copy
import io

import pytest
import torch
from backpack import backpack, extend
from backpack.context import CTX
from cases import EXACT, FLOAT64, HEADS, Featurizer, derivatives, oracle_moments
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.observation import observe
from fishr.penalties import Fishr
from fishr.statistics import backpack_moments, distance_to_mean, gradient_moments
from fishr.statistics.backpack_moments import DomainMoments
from fishr.statistics.layer_gradients import convolution_gradients
from fishr.types import DomainBatch, Problem

SIZES = (3, 5)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(FLOAT64)


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 3, dtype=FLOAT64), torch.randint(2, (8,))


def fishr_value(head: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    return distance_to_mean(gradient_moments(head, features, labels, SIZES, route="backpack").variance)


def test_grad_is_never_touched() -> None:
    head, (features, labels) = mlp(), data()
    features.requires_grad_()
    fishr_value(head, features, labels)
    assert all(p.grad is None for p in (*head.parameters(), features))
    for p in (*head.parameters(), features):
        p.grad = torch.full_like(p, 3.0)
    fishr_value(head, features, labels)
    assert all(p.grad.eq(3.0).all() for p in (*head.parameters(), features))


def test_no_attribute_is_left_on_parameters_or_modules() -> None:
    head, (features, labels) = mlp(), data()
    parameters = [set(dir(p)) for p in head.parameters()]
    modules = [(set(vars(m)), len(m._forward_hooks), len(m._backward_hooks)) for m in head.modules()]
    fishr_value(head, features, labels)
    assert [set(dir(p)) for p in head.parameters()] == parameters
    assert [(set(vars(m)), len(m._forward_hooks), len(m._backward_hooks)) for m in head.modules()] == modules


def test_no_attribute_is_left_after_a_failure() -> None:
    layer, (features, labels) = nn.Linear(3, 3), data()
    head = nn.Sequential(layer, nn.Tanh(), layer).to(FLOAT64)
    before, hooks = [set(dir(p)) for p in head.parameters()], len(CTX.hook_handles)
    with pytest.raises(InputError):
        fishr_value(head, features, labels)
    assert [set(dir(p)) for p in head.parameters()] == before
    assert len(CTX.hook_handles) == hooks
    assert_close(fishr_value(mlp(), features, labels).ndim, 0)


def test_backpacks_global_list_of_hooks_does_not_grow() -> None:
    head, (features, labels) = mlp(), data()
    before = len(CTX.hook_handles)
    for _ in range(3):
        fishr_value(head, features, labels)
    assert len(CTX.hook_handles) == before
    assert CTX.active_exts == ()


def test_the_head_works_with_torch_func_afterwards() -> None:
    head, (features, labels) = mlp(), data()
    fishr_value(head, features, labels)

    def value(parameters: dict[str, Tensor]) -> Tensor:
        return CrossEntropy()(torch.func.functional_call(head, parameters, (features,)), labels).sum()

    parameters = dict(head.named_parameters())
    gradients = torch.func.grad(value)(parameters)
    expected = torch.autograd.grad(value(parameters), list(parameters.values()))
    assert_close(list(gradients.values()), list(expected), **EXACT)


@pytest.mark.slow
def test_the_head_can_be_copied_pickled_and_compiled_afterwards() -> None:
    head, (features, labels) = mlp(), data()
    expected = fishr_value(head, features, labels)
    copied = copy.deepcopy(head)
    assert_close(copied(features), head(features))
    assert_close(fishr_value(copied, features, labels), expected)
    stream = io.BytesIO()
    torch.save(head, stream)
    stream.seek(0)
    assert_close(torch.load(stream, weights_only=False)(features), head(features))
    compiled = torch.compile(head, backend="eager", fullgraph=True)
    assert_close(compiled(features), head(features))
    assert_close(fishr_value(head, features, labels), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_head_works_with_curvlinops_afterwards() -> None:
    curvlinops = pytest.importorskip("curvlinops")
    head, (features, labels) = mlp(), data()
    fishr_value(head, features, labels)
    hessian = curvlinops.HessianLinearOperator(
        head, nn.CrossEntropyLoss(), list(head.parameters()), [(features, labels)], check_deterministic=True
    )
    size = sum(p.numel() for p in head.parameters())
    found = hessian @ torch.eye(size, dtype=FLOAT64)

    def value(flat: Tensor) -> Tensor:
        parts = flat.split([p.numel() for p in head.parameters()])
        named = {n: part.view_as(p) for (n, p), part in zip(head.named_parameters(), parts, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(head, named, (features,)), labels)

    at = torch.cat([p.detach().flatten() for p in head.parameters()])
    assert_close(found, torch.func.hessian(value)(at), atol=1e-8, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_head_that_the_user_extended_or_compiled_serves_as_well() -> None:
    head, (features, labels) = mlp(), data()
    expected = oracle_moments(head, features, labels, SIZES, CrossEntropy()).variance
    compiled = torch.compile(head, backend="eager")
    compiled(features)
    assert_close(gradient_moments(compiled, features, labels, SIZES, route="backpack").variance, expected, **EXACT)
    extended = extend(head)
    assert_close(gradient_moments(extended, features, labels, SIZES, route="backpack").variance, expected, **EXACT)


def test_features_with_a_graph_get_the_penaltys_gradient() -> None:
    head, (inputs, labels), featurizer = mlp(), data(), Featurizer((3,))
    found = derivatives(fishr_value(head, featurizer(inputs), labels), featurizer)
    moments = oracle_moments(head, featurizer(inputs), labels, SIZES, CrossEntropy())
    expected = derivatives(distance_to_mean(moments.variance), featurizer)
    assert expected[0].abs().max() > 1e-6
    assert_close(found, expected, **EXACT)


def test_frozen_and_cached_features_serve_and_stay_as_they_are() -> None:
    head, (features, labels) = mlp(), data()
    moments = oracle_moments(head, features, labels, SIZES, CrossEntropy())
    value = fishr_value(head, features, labels)
    expected = derivatives(distance_to_mean(moments.variance), head)
    assert max(g.abs().max() for g in expected) > 1e-6
    assert_close(derivatives(value, head), expected, **EXACT)
    assert not features.requires_grad
    frozen = Featurizer((3,)).requires_grad_(False)
    assert fishr_value(head, frozen(features), labels).requires_grad


@pytest.mark.parametrize("route", ["closed_form", "backpack", "functional"])
@pytest.mark.parametrize("backward_inside", [False, True])
def test_autocast_reaches_the_featurizer_alone(route: str, backward_inside: bool) -> None:
    """Features in bfloat16 are 2⁻⁸ off; the statistics computed from the same features are not a bit further off."""
    featurizer, head = nn.Linear(6, 30), nn.Linear(30, 5)
    batch = DomainBatch(torch.randn(60, 6), torch.randint(5, (60,)), (20, 40))
    plain = observe(featurizer, head, batch, route=route)
    with torch.autocast("cpu", torch.bfloat16):
        seen = observe(featurizer, head, batch, route=route)
        variance, (value, _) = seen.moments.variance, Fishr()(seen, (), 0)
        features = featurizer(batch.inputs)
        assert features.dtype is torch.bfloat16
        if backward_inside:
            value.backward()
    if not backward_inside:
        value.backward()
    assert variance.dtype is value.dtype is featurizer.weight.grad.dtype is torch.float32
    same = gradient_moments(head, features.float(), batch.labels, batch.sizes)
    assert_close(variance, same.variance, atol=1e-6, rtol=1e-4)
    assert_close(value, distance_to_mean(same.variance), atol=0.0, rtol=1e-3)
    assert_close(variance, plain.moments.variance, atol=0.03 * plain.moments.variance.max().item(), rtol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        direct = gradient_moments(head, features, batch.labels, batch.sizes, route=route).variance
    assert_close(direct, same.variance, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("route", ["closed_form", "backpack", "functional"])
def test_gradients_accumulate_over_steps(route: str) -> None:
    """Two batches, backward after each without zeroing: ``.grad`` holds the sum of both losses' gradients."""
    featurizer, head = Featurizer((3,)), nn.Linear(3, 2).to(FLOAT64)
    modules = nn.ModuleList([featurizer, head])
    totals = [torch.zeros_like(p) for p in modules.parameters()]
    for _ in range(2):
        batch = DomainBatch(*data(), SIZES)
        moments = oracle_moments(head, featurizer(batch.inputs), batch.labels, SIZES, CrossEntropy())
        loss = CrossEntropy()(head(featurizer(batch.inputs)), batch.labels).mean() + distance_to_mean(moments.variance)
        totals = [t + g for t, g in zip(totals, torch.autograd.grad(loss, list(modules.parameters())), strict=True)]
        seen = observe(featurizer, head, batch, route=route)
        (seen.losses.mean() + Fishr()(seen, (), 0)[0]).backward()
    assert_close([p.grad for p in modules.parameters()], totals, **EXACT)


def test_forwards_in_between_disturb_nothing() -> None:
    """Also one with gradients, which corrupts the statistics of a module that BackPACK extended in place."""
    head, (features, labels), featurizer = mlp(), data(), Featurizer((3,))
    batch = DomainBatch(features, labels, SIZES)
    expected = derivatives(Fishr()(observe(featurizer, head, batch, route="backpack"), (), 0)[0], featurizer, head)
    seen = observe(featurizer, head, batch, route="backpack")
    assert seen.losses.requires_grad
    with torch.no_grad():
        head(torch.randn(5, 3, dtype=FLOAT64))
    between = head(torch.randn(9, 3, dtype=FLOAT64)).sum()
    value, _ = Fishr()(seen, (), 0)
    head(torch.randn(2, 3, dtype=FLOAT64)).sum().backward()
    between.backward()
    assert_close(derivatives(value, featurizer, head), expected, **EXACT)


def test_a_head_in_chunks_is_the_head_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpack_moments, "FEW_PLACES", 0)
    for name in ("conv2d", "tokens", "embedding"):
        case = HEADS[name]
        head, inputs, labels = case.head(3), case.inputs(7), torch.randint(3, (7,))
        whole = gradient_moments(head, inputs, labels, (5, 2), route="backpack")
        with monkeypatch.context() as patch:
            patch.setitem(backpack_moments._CHUNK, "cpu", 50)
            parts = gradient_moments(head, inputs, labels, (5, 2), route="backpack")
        assert_close(parts.variance, whole.variance, **EXACT)
        expected = derivatives(distance_to_mean(whole.variance), head)
        assert_close(derivatives(distance_to_mean(parts.variance), head), expected, **EXACT)


def test_no_layer_holds_more_samples_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[tuple[int, ...]]()

    def spy(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> Tensor:
        gradients = convolution_gradients(layer, deltas, inputs)
        seen.append(tuple(gradients.shape[:2]))
        return gradients

    monkeypatch.setitem(backpack_moments._FORMULAS, nn.Conv2d, spy)
    monkeypatch.setattr(backpack_moments, "_CHANNELS", 1)
    monkeypatch.setattr(backpack_moments, "FEW_PLACES", 1)
    pool = nn.AdaptiveAvgPool2d(1)
    head = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), pool, nn.Flatten(), nn.Linear(2, 2, bias=False))
    arguments = head, torch.randn(5, 1, 3, 4), torch.zeros(5).long(), (5,)
    monkeypatch.setitem(backpack_moments._CHUNK, "cpu", 2 * 2 * 9)  # two samples of one output channel
    gradient_moments(*arguments, route="backpack")
    assert seen == [(2, 1), (2, 1), (1, 1)] * 2  # and none for the linear layer
    seen.clear()
    monkeypatch.setattr(backpack_moments, "_CHANNELS", 2)
    gradient_moments(*arguments, route="backpack").variance.sum().backward()
    assert seen == [(2, 2), (2, 2), (1, 2)] * 2  # and again in the backward pass


@pytest.mark.parametrize("name", ["recurrent", "LSTM"])
def test_recurrent_statistics_are_had_without_a_graph_and_refused_with_one(name: str) -> None:
    case = HEADS[name]
    head, features, labels = case.head(3), case.inputs(6), torch.randint(3, (6,))
    expected = oracle_moments(head, features, labels, (2, 4), CrossEntropy())
    with torch.no_grad():
        found = gradient_moments(head, features, labels, (2, 4), route="backpack")
    assert_close(found.variance, expected.variance, **EXACT)
    with pytest.raises(InputError, match=r"'0\.weight_ih_l0' of torch.*cannot be differentiated again; use route="):
        gradient_moments(head, features, labels, (2, 4), route="backpack")


@pytest.mark.slow
def test_a_training_step_through_the_route_leaves_no_memory_behind() -> None:
    """No twin, hook or saved activation outlives the step."""
    head, (features, labels) = mlp(), data()
    penalty, batch = Fishr(ema=0.9), DomainBatch(features, labels, SIZES)
    state = penalty.init(Problem.of(head, 2))

    def step() -> int:
        nonlocal state
        value, state = penalty(observe(nn.Identity(), head, batch, route="backpack"), state, 0)
        value.backward()
        head.zero_grad()
        del value
        return sum(type(thing) is nn.Linear for thing in alive())

    step()
    before = step()
    assert step() == before


def alive() -> list[object]:
    import gc

    gc.collect()
    return gc.get_objects()


@pytest.mark.parametrize("kind", ["linear", "tokens", "convolution", "normalization", "recurrent"])
def test_the_extension_serves_backpacks_own_hooks(kind: str) -> None:
    """What people get who extend their modules themselves is what the route gives."""
    inputs, layers = {
        "linear": (torch.randn(5, 3), [nn.Linear(3, 4)]),
        "tokens": (torch.randn(5, 2, 3), [nn.Linear(3, 4), nn.Flatten()]),
        "convolution": (torch.randn(5, 2, 6, 6), [nn.Conv2d(2, 3, 3), nn.Flatten()]),
        "normalization": (torch.randn(5, 4, 3), [nn.GroupNorm(2, 4), nn.Flatten()]),
        "recurrent": (torch.randn(5, 4, 3), [nn.RNN(3, 4, batch_first=True), Last()]),
    }[kind]
    network, labels, sizes = nn.Sequential(*layers), torch.tensor([0, 1, 2, 0, 1]), (2, 3)
    route = "functional" if kind == "recurrent" else "auto"
    expected = gradient_moments(network, inputs, labels, sizes, route=route)
    extended = nn.Sequential(extend(layers[0]), *layers[1:])
    with backpack(DomainMoments(sizes)):
        nn.functional.cross_entropy(extended(inputs.requires_grad_()), labels, reduction="sum").backward()
    parts = [parameter.domain_moments for parameter in network.parameters()]
    for index, statistic in enumerate((expected.mean, expected.variance)):
        assert_close(torch.cat([part[index].flatten(1) for part in parts], 1), statistic.detach(), rtol=1e-4, atol=1e-6)
    assert all(part[0].shape == (2, *p.shape) for part, p in zip(parts, network.parameters(), strict=True))


class Last(nn.Module):
    """A recurrent layer's output at its last step."""

    def forward(self, output: tuple[Tensor, Tensor]) -> Tensor:
        return output[0][:, -1]
