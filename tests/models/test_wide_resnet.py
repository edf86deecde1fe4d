import pytest
import torch
from torch.nn import functional as F

from fishr.errors import InputError
from fishr.models.wide_resnet import WideResNet


def build(network: WideResNet, seed: int = 0) -> torch.nn.Module:
    return network((3, 32, 32), torch.Generator().manual_seed(seed))


def by_hand(weights: dict[str, torch.Tensor], inputs: torch.Tensor, blocks: int) -> torch.Tensor:
    """The paper's network from the tensors in their order, with batch statistics; no module is called."""
    kept = iter([tensor for name, tensor in weights.items() if "running" not in name and "num" not in name])

    def activated(x):
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = next(kept).view(1, -1, 1, 1), next(kept).view(1, -1, 1, 1)
        return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)

    x = F.conv2d(inputs, next(kept), padding=1)
    for group in range(3):
        for block in range(blocks):
            stride = 2 if group and not block else 1
            active = activated(x)
            inner = F.conv2d(active, next(kept), stride=stride, padding=1)
            outer = F.conv2d(activated(inner), next(kept), padding=1)
            x = outer + (x if block else F.conv2d(active, next(kept), stride=stride))
    x = activated(x)
    assert next(kept, None) is None
    return x.mean((2, 3))


@pytest.mark.parametrize(("depth", "width"), [(10, 2), (16, 3)])
def test_it_is_the_papers_network(depth, width):
    module = build(WideResNet(depth, width)).double()
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.5, 1.5)
    inputs = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(module(inputs), by_hand(module.state_dict(), inputs, (depth - 4) // 6))


# Zagoruyko and Komodakis 2016, table 4: millions of parameters, with the classifier of ten classes.
@pytest.mark.parametrize(("depth", "width", "millions"), [(40, 4, 8.9), (16, 8, 11.0)])
def test_it_has_the_papers_number_of_parameters(depth, width, millions):
    network = WideResNet(depth, width)
    count = sum(parameter.numel() for parameter in build(network).parameters())
    features = network.features((3, 32, 32))
    assert round((count + features * 10 + 10) / 1e6, 1) == millions
    assert features == 64 * width


def test_convolutions_are_normal_by_their_outputs_and_norms_begin_neutral():
    for name, tensor in build(WideResNet()).state_dict().items():
        if tensor.ndim == 4 and tensor.numel() > 4000:
            fan_out = tensor.shape[0] * tensor[0, 0].numel()
            assert tensor.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05), name
        elif tensor.ndim == 1:
            neutral = 1.0 if name.endswith(("weight", "running_var")) else 0.0
            assert torch.equal(tensor, torch.full_like(tensor, neutral)), name


def test_its_normalization_trains():
    module = build(WideResNet(10, 1))
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module(torch.randn(4, 3, 32, 32))
    assert len(before) == 3 * 7
    assert not any(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())


def test_dropout_acts_inside_the_blocks_while_training():
    inputs = torch.randn(4, 3, 32, 32)
    dropping, plain = build(WideResNet(10, 1, dropout=0.5)), build(WideResNet(10, 1))
    features = dropping(inputs)
    assert not torch.equal(features, dropping(inputs))
    # On the features themselves it would leave zeros.
    assert (features != 0).float().mean() > 0.9
    plain.load_state_dict(dropping.state_dict())
    assert torch.equal(dropping.eval()(inputs), plain.eval()(inputs))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"depth": 18}, "depth: got 18, expected 6n"),
        ({"depth": 4}, "depth: got 4, expected 6n"),
        ({"width": 0}, "width: got 0, expected a whole number of at least 1"),
        ({"dropout": 1.0}, "dropout: got 1.0, expected"),
    ],
)
def test_networks_that_there_are_not_are_refused(settings, reason):
    with pytest.raises(InputError, match=reason):
        WideResNet(**settings)
