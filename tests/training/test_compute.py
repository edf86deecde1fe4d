"""How numbers are computed: settings that round otherwise, and settings that change nothing."""

import functools

import attrs
import pytest
import torch
from torch import nn

from fishr.data.batches import Minibatch
from fishr.data.digits import ColoredDigits
from fishr.errors import InputError
from fishr.models.featurizers import MNISTCNN
from fishr.training.compute import FIRST, LEAST, Compute, FourierConvolutions, GradientScale, products
from fishr.training.model import build_model
from fishr.training.objective import Objective
from fishr.training.sgd import SGD
from fishr.training.state import first_state
from fishr.training.step import NotFinite, advance


def _trained(experiment, steps=3, change=None):
    domains = experiment.data(experiment.seed, None)
    model = build_model(experiment, domains)
    state = first_state(experiment, model, len(domains.training))
    state = state if change is None else change(state)
    records = []
    for _ in range(steps):
        state, record = advance(model, experiment, state, domains.training)
        records.append(record)
    return model, state, records


def _wide(experiment):
    """The same in float64, so that a difference is one of mathematics."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        return _trained(attrs.evolve(experiment, data=Wide(experiment.data)))
    finally:
        torch.set_default_dtype(before)


@attrs.frozen
class Wide:
    data: ColoredDigits

    def __call__(self, seed, data_dir):
        domains = self.data(seed, data_dir)

        def wide(part):
            return tuple(attrs.evolve(d, inputs=d.inputs.double()) for d in part)

        return attrs.evolve(domains, training=wide(domains.training), evaluation=wide(domains.evaluation))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "float16"}, "precision: got 'float16', expected 'fp32' or 'tf32' or 'bf16' or 'fp16'"),
        ({"micro_batches": 0}, "micro_batches: got 0, expected a whole number of at least 1"),
    ],
)
def test_what_is_no_way_to_compute_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        Compute(**change)


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_products_are_multiplied_as_said_and_torch_is_left_as_it_was(precision):
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [backend.fp32_precision for backend in backends]

    def fails_within():
        with products(precision):
            assert [backend.fp32_precision for backend in backends] == [precision] * 2
            raise ValueError("within")

    with pytest.raises(ValueError, match="within"):
        fails_within()
    assert [backend.fp32_precision for backend in backends] == before


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_micro_batches_give_the_step_of_the_whole_batch(plain, parts):
    # Fishr's variance, a moving average and weight decay are of all samples together, so they tell parts apart.
    _, whole, records = _wide(plain)
    model, cut, others = _wide(attrs.evolve(plain, compute=Compute(micro_batches=parts)))
    for name, weight in whole.parameters.items():
        torch.testing.assert_close(cut.parameters[name], weight, rtol=1e-9, atol=1e-11)
    for one, other in zip(records, others, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-9)
    assert model.featurizer.training


def test_micro_batches_hold_the_activations_of_one_at_a_time(plain):
    held = {}
    for parts in (1, 4):
        experiment = attrs.evolve(plain, compute=Compute(micro_batches=parts), batches=Minibatch(size=40))
        domains = experiment.data(experiment.seed, None)
        model = build_model(experiment, domains)
        state = first_state(experiment, model, 2)
        sizes = []
        model.featurizer[-1].register_forward_hook(lambda *call, sizes=sizes: sizes.append(_rows(call[2])))
        advance(model, experiment, state, domains.training)
        held[parts] = sizes
    # Each piece twice: without a graph, and with one.
    assert held == {1: [(80, True)], 4: [(20, False)] * 4 + [(20, True)] * 4}


def _rows(features):
    return len(features), features.requires_grad


def test_random_layers_and_running_means_of_micro_batches_are_those_of_one_pass_each(everything):
    """Dropout draws in the second pass what it drew in the first, and batch normalization counts each piece once."""
    experiment = attrs.evolve(everything, compute=Compute(micro_batches=3))
    drawn = []
    domains = experiment.data(experiment.seed, None)
    model = build_model(experiment, domains)
    state = first_state(experiment, model, 2)
    model.featurizer[-1].register_forward_hook(lambda *call: drawn.append(call[2].detach().clone()))
    untouched = torch.get_rng_state()
    after, _ = advance(model, experiment, state, domains.training)
    assert len(drawn) == 6
    for one, other in zip(drawn[:3], drawn[3:], strict=True):
        assert torch.equal(one, other)
        assert (one == 0).any()
    assert not torch.equal(drawn[0] == 0, drawn[1] == 0)
    counts = [value for name, value in after.buffers.items() if name.endswith("num_batches_tracked")]
    assert [int(count) for count in counts] == [3]
    assert torch.equal(torch.get_rng_state(), untouched)


def test_half_precision_scales_the_featurizers_gradient_alone(plain):
    """Loss and penalty are what they are without a scale; the weights too, but for the rounding to 16 bits."""
    half = attrs.evolve(plain, compute=Compute(precision="fp16"))
    scaled, unscaled = (
        _trained(half, 1, lambda state, value=value: attrs.evolve(state, scale=GradientScale(value)))
        for value in (1024.0, 1.0)
    )
    assert scaled[2] == unscaled[2]
    _, exact, (record,) = _trained(plain, 1)
    assert scaled[2][0].terms["fishr"].value == pytest.approx(record.terms["fishr"].value, rel=0.02)
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(scaled[1].parameters[name], unscaled[1].parameters[name], rtol=0, atol=0)
        torch.testing.assert_close(scaled[1].parameters[name], exact.parameters[name], rtol=0.02, atol=0.02)
    assert scaled[1].scale == GradientScale(1024.0, steps=1)


def test_a_scale_saves_gradients_that_16_bits_cannot_hold(plain):
    """With a loss of 1e-7 of its size, float16 rounds the features' gradient to 0, unless it is scaled."""
    tiny = attrs.evolve(
        plain,
        compute=Compute(precision="fp16"),
        objective=Objective(),
        loss=Tiny(),
    )
    first = "featurizer.1.weight"
    moved = {}
    for value in (1.0, FIRST):
        _, state, _ = _trained(tiny, 1, lambda state, value=value: attrs.evolve(state, scale=GradientScale(value)))
        before = _trained(tiny, 0)[1]
        moved[value] = (state.parameters[first] != before.parameters[first]).double().mean()
    assert moved[1.0] < 0.05
    assert moved[FIRST] > 0.5


@attrs.frozen
class Tiny:
    def __call__(self, logits, labels):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits.squeeze(1), labels.to(logits.dtype), reduction="none"
        )
        return 1e-6 * loss

    def outputs(self, classes):
        return 1


def test_a_gradient_that_overflows_moves_nothing_and_halves_the_scale(plain, same):
    half = attrs.evolve(plain, compute=Compute(precision="fp16"))
    _, before, _ = _trained(half, 0)
    _, after, _ = _trained(half, 1, lambda state: attrs.evolve(state, scale=GradientScale(2.0**40)))
    assert same(after.parameters, before.parameters)
    assert after.optimizer.steps == before.optimizer.steps
    assert (after.step, after.scale) == (1, GradientScale(2.0**39))


def test_a_gradient_that_overflows_at_any_scale_is_said(plain):
    half = attrs.evolve(plain, compute=Compute(precision="fp16"), objective=Objective())
    with pytest.raises(NotFinite, match="step 0: gradient is inf"):
        _trained(half, 1, lambda state: _endless(state))


def _endless(state):
    weight = state.parameters["head.weight"].clone().fill_(1e10)
    return attrs.evolve(state, parameters=state.parameters | {"head.weight": weight}, scale=GradientScale(LEAST))


def test_the_scale_grows_back():
    scale = GradientScale(8.0)
    for _ in range(1999):
        scale = scale.after(finite=True)
    assert scale == GradientScale(8.0, 1999)
    assert scale.after(finite=True) == GradientScale(16.0, 0)
    assert scale.after(finite=False) == GradientScale(4.0, 0)


def test_other_precisions_have_no_scale(plain):
    for precision in ("fp32", "tf32", "bf16"):
        assert _trained(attrs.evolve(plain, compute=Compute(precision=precision)), 1)[1].scale is None


def _convolving(plain, **compute):
    data = ColoredDigits(training_images=20)
    return attrs.evolve(plain, featurizer=MNISTCNN(), data=data, compute=Compute(**compute))


def test_channels_last_keeps_the_weights_layout_over_steps_and_the_numbers_but_for_rounding(plain):
    _, usual, _ = _trained(_convolving(plain), 2)
    _, state, _ = _trained(_convolving(plain, channels_last=True), 2)
    convolutions = [p for name, p in state.parameters.items() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert len(convolutions) == 4
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)
    for name, weight in usual.parameters.items():
        torch.testing.assert_close(state.parameters[name], weight, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_a_compiled_featurizer_gives_the_same_numbers_but_for_rounding_and_is_compiled_once(plain, monkeypatch):
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    # Traced and differentiated as for any backend, but without a C++ compiler, which takes long.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    _, usual, _ = _trained(plain)
    model, state, _ = _trained(attrs.evolve(plain, compute=Compute(compile=True)))
    assert model.compiled is not None
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for name, weight in usual.parameters.items():
        torch.testing.assert_close(state.parameters[name], weight, rtol=1e-3, atol=1e-5)


def test_what_a_scale_multiplied_is_divided_by_it(plain):
    """Descent at rate 1, unlike Adam, tells a gradient from its multiple."""
    half = attrs.evolve(plain, compute=Compute(precision="fp16"), optimizer=SGD(lr=1.0))
    states = [
        _trained(half, 1, lambda state, value=value: attrs.evolve(state, scale=GradientScale(value)))[1]
        for value in (1.0, 1024.0)
    ]
    for name, weight in states[0].parameters.items():
        torch.testing.assert_close(states[1].parameters[name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("precision", "expected"), [("tf32", "tf32"), ("fp32", "ieee")])
def test_only_the_featurizer_multiplies_in_tf32(plain, precision, expected):
    seen = {}

    def note(place):
        seen[place] = torch.backends.cuda.matmul.fp32_precision

    experiment = attrs.evolve(plain, compute=Compute(precision=precision))
    domains = experiment.data(experiment.seed, None)
    model = build_model(experiment, domains)
    state = first_state(experiment, model, 2)
    for name, module in (("featurizer", model.featurizer[1]), ("head", model.head)):
        module.register_forward_hook(lambda *_, name=name: note(name))
        module.weight.register_hook(lambda _, name=name: note(f"{name}, backward"))
    advance(model, experiment, state, domains.training)
    assert seen == {
        "featurizer": expected,
        "featurizer, backward": expected,
        "head": "ieee",
        "head, backward": "ieee",
    }


NNPACK = pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="needs NNPACK")


def _both(layer, inputs):
    """What a layer gives by torch's kernels and in the mode."""
    with torch.no_grad():
        plain = layer(inputs)
        with FourierConvolutions():
            return plain, layer(inputs)


@NNPACK
@pytest.mark.parametrize(
    ("count", "side", "padding", "bias"), [(128, 14, 1, True), (131, 30, 0, False), (200, 11, 2, True)]
)
def test_many_small_images_are_convolved_otherwise_as_exactly(count, side, padding, bias):
    layer = nn.Conv2d(16, 24, 3, padding=padding, bias=bias)
    inputs = torch.randn(count, 16, side, side).contiguous(memory_format=torch.channels_last)
    plain, fast = _both(layer, inputs)
    exact = layer.double()(inputs.double()).detach()
    assert not torch.equal(fast, plain)
    assert (fast - exact).square().mean() < 2 * (plain - exact).square().mean()


@pytest.mark.parametrize(
    "change",
    [
        {"count": 127},
        {"side": 17},
        {"stride": 2},
        {"dilation": 2},
        {"groups": 4, "inputs": 64},
        {"kernel_size": 5},
        {"inputs": 8},
        {"padding": "same"},
        {"dtype": torch.float64},
    ],
)
def test_all_else_is_torchs_convolution(change):
    count, channels, side = change.get("count", 128), change.get("inputs", 16), change.get("side", 16)
    sizes = {name: value for name, value in change.items() if name not in ("count", "inputs", "side")}
    layer = nn.Conv2d(channels, 24, **({"kernel_size": 3} | sizes))
    plain, fast = _both(layer, torch.randn(count, channels, side, side, dtype=layer.weight.dtype))
    assert torch.equal(fast, plain)


def test_autocast_convolves_in_16_bits():
    with torch.autocast("cpu", torch.bfloat16):
        plain, fast = _both(nn.Conv2d(16, 24, 3), torch.randn(128, 16, 16, 16))
    assert fast.dtype == torch.bfloat16
    assert torch.equal(fast, plain)
