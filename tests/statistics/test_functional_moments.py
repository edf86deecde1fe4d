"""The route for any module: layers that BackPACK lacks, tied weights, dropout."""

import pytest
import torch
from cases import EXACT, FLOAT64, derivatives, oracle_gradients
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from fishr.losses import CrossEntropy
from fishr.statistics import gradient_moments, per_sample_gradients


class Attention(nn.Module):
    """Self-attention over tokens with a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.out = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.norm(tokens + self.attention(tokens, tokens, tokens)[0]).mean(1))


class Normalize(nn.Module):
    """Layer norm without a layer, over two axes."""

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.layer_norm(nn.functional.layer_norm(tokens, tokens.shape[-2:]), (4,))


def tied() -> nn.Module:
    head = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False), nn.Flatten())
    head[2].weight = head[0].weight
    return nn.Sequential(head, nn.Linear(12, 3))


class Recurrent(nn.Module):
    """Two layers in both directions, time first: nothing that BackPACK knows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 2, num_layers=2, bidirectional=True)
        self.out = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.layer(tokens.transpose(0, 1))[0][-1])


HEADS = {
    "attention": Attention,
    "tied": tied,
    "recurrent": Recurrent,
    "transformer": lambda: nn.Sequential(
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), nn.Flatten(), nn.Linear(12, 3)
    ),
    "instance norm": lambda: nn.Sequential(
        nn.Linear(4, 4), nn.InstanceNorm1d(3, affine=True), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    ),
    "instance norm with running statistics": lambda: nn.Sequential(
        nn.InstanceNorm1d(3, affine=True, track_running_stats=True).eval(), nn.Flatten(), nn.Linear(12, 3)
    ),
    "RMS norm": lambda: nn.Sequential(nn.Linear(4, 4), nn.RMSNorm(4), nn.Flatten(), nn.Linear(12, 3)),
    "layer norm as a function": lambda: nn.Sequential(nn.Linear(4, 4), Normalize(), nn.Flatten(), nn.Linear(12, 3)),
    "group norm": lambda: nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.GroupNorm(3, 12), nn.Linear(12, 3)),
}


@pytest.mark.parametrize("name", HEADS)
def test_gradients_and_their_gradients_are_those_of_one_sample_after_the_other(name: str) -> None:
    head, labels = HEADS[name]().to(FLOAT64), torch.randint(3, (5,))
    features = torch.randn(5, 3, 4, dtype=FLOAT64, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        expected = oracle_gradients(head, features, labels, CrossEntropy())
    found = per_sample_gradients(head, features, labels, CrossEntropy())
    assert_close(found, expected, **EXACT)
    (by_features,) = torch.autograd.grad(found.square().sum(), [features], retain_graph=True)
    (by_features_expected,) = torch.autograd.grad(expected.square().sum(), [features], retain_graph=True)
    assert_close(by_features, by_features_expected, **EXACT)
    assert_close(derivatives(found.square().sum(), head), derivatives(expected.square().sum(), head), **EXACT)


def test_an_embedding_with_padding() -> None:
    head = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Flatten(), nn.Linear(6, 3)).to(FLOAT64)
    features, labels = torch.tensor([[0, 1], [2, 0], [3, 3]]), torch.tensor([0, 1, 2])
    expected = oracle_gradients(head, features, labels, CrossEntropy())
    assert_close(per_sample_gradients(head, features, labels, CrossEntropy()), expected, **EXACT)


def test_dropout_draws_for_each_sample() -> None:
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(50, 2, bias=False))
    features, labels = torch.ones(2, 50), torch.zeros(2).long()
    first, second = per_sample_gradients(head, features, labels, CrossEntropy()).view(2, 2, 50)[:, 1].ne(0)
    assert 10 < first.sum() < 40
    assert first.ne(second).any()


def test_two_passes_lose_no_digits_in_float32() -> None:
    """abs(mean)/std ≈ 1000 in the gradients of the weight, which one pass would get wrong by more than 10 %."""
    features, head = 1000 + torch.randn(64, 1), nn.Linear(1, 1)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits - labels).sum(1)  # δ = 1, so that g = z

    variance = gradient_moments(head, features, torch.zeros(64, 1), (64,), loss, "functional").variance[0, 0]
    assert_close(variance.double(), features.double().var(unbiased=False), atol=0.0, rtol=1e-6)
