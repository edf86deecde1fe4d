"""The affine shortcut of a linear head against one forward pass a grid point."""

import pytest
import torch
from cases import EXACT, FLOAT64
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import EVERY_LOSS
from torch import nn

from fishr.errors import InputError
from fishr.landscape import Plane, linear_scores, linear_surface, random_directions, weights_of
from fishr.landscape.linear_surface import affine_logits
from fishr.losses import BinaryCrossEntropy, CrossEntropy

XS, YS = torch.linspace(-1.5, 1.5, 5, dtype=FLOAT64), torch.linspace(-1, 2, 4, dtype=FLOAT64)


def _plane(head, count=2, seed=0):
    weights = weights_of(head)
    vectors = [{name: torch.randn_like(value) for name, value in weights.items()} for _ in range(count)]
    return Plane(weights, *vectors)


def _check(found, expected):
    torch.testing.assert_close(found.losses, expected.losses, **EXACT)
    torch.testing.assert_close(found.accuracies, expected.accuracies, **EXACT, equal_nan=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", EVERY_LOSS.values(), ids=EVERY_LOSS)
@pytest.mark.parametrize("count", [1, 2])
def test_equal_to_direct_evaluation(oracle, case, bias, count):
    head = nn.Linear(3, case.outputs, bias=bias, dtype=FLOAT64)
    samples = [(2 * torch.randn(n, 3, dtype=FLOAT64), case.labels(n)) for n in (7, 1, 4)]
    ys = YS if count == 2 else torch.zeros(1, dtype=FLOAT64)
    plane = _plane(head, count)
    expected = oracle(head, plane, samples, XS, ys, case.loss)
    assert (expected.losses[:, 0] - expected.losses[:, -1]).abs().min() > 1e-3
    _check(linear_scores(plane, samples, XS, ys, case.loss), expected)


@settings(max_examples=40)
@given(
    rows=st.integers(1, 6),
    classes=st.integers(2, 5),
    nx=st.integers(1, 4),
    ny=st.integers(1, 4),
    scale=st.sampled_from([1e-3, 1.0, 30.0, 300.0, 3e4]),
    block=st.sampled_from([1, 40, 1 << 18]),
    seed=st.integers(0, 1000),
)
def test_any_size_and_any_scale(rows, classes, nx, ny, scale, block, seed):
    """Logits far beyond what an exponential holds, and blocks of a single row."""
    torch.manual_seed(seed)
    features, labels = torch.randn(rows, 3, dtype=FLOAT64), torch.randint(classes, (rows,))
    head = nn.Linear(3, classes, dtype=FLOAT64)
    head.weight.data *= scale
    plane = _plane(head)
    xs, ys = torch.linspace(-1, 1, nx, dtype=FLOAT64), torch.linspace(-scale, 1, ny, dtype=FLOAT64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_surface, "_BLOCK", block)
        found = linear_scores(plane, [(features, labels)], xs, ys)
    for i, x in enumerate(xs.tolist()):
        for j, y in enumerate(ys.tolist()):
            weights = plane.at(x, y)
            logits = features @ weights["weight"].T + weights["bias"]
            expected = nn.functional.cross_entropy(logits, labels)
            torch.testing.assert_close(found.losses[0, i, j], expected, atol=1e-10 * max(1, scale), rtol=1e-10)
            assert found.accuracies[0, i, j] == (logits.argmax(1) == labels).double().mean()


def test_tiny_losses_keep_their_digits():
    """log(1 + ε) of losses near zero, and no difference of large logits."""
    plane = Plane({"weight": torch.tensor([[30.0], [0.0]]).double()}, {"weight": torch.tensor([[1.0], [0.0]]).double()})
    data = (torch.ones(1, 1).double(), torch.tensor([0]))
    xs = torch.tensor([0.0, 10.0]).double()
    found = linear_scores(plane, [data], xs, torch.zeros(1)).losses.flatten()
    expected = torch.log1p(torch.exp(-torch.tensor([30.0, 40.0]).double()))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(("label", "right"), [(0, 1.0), (1, 0.0), (2, 0.0)])
def test_ties_go_to_the_first_class(label, right):
    """As argmax has it: of equal logits the first is predicted, on the whole grid."""
    weights = {"weight": torch.zeros(3, 2).double(), "bias": torch.zeros(3).double()}
    direction = {"weight": torch.zeros(3, 2).double(), "bias": torch.ones(3).double()}
    data = (torch.ones(1, 2).double(), torch.tensor([label]))
    xs = torch.tensor([-1.0, 0.0, 1.0])
    found = linear_scores(Plane(weights, direction, direction), [data], xs, xs[:2])
    assert found.accuracies.unique().tolist() == [right]


def test_a_tie_at_the_origin_alone(oracle):
    """Logits that cross exactly on a grid point."""
    head = nn.Linear(1, 2, bias=False, dtype=FLOAT64)
    plane = Plane({"weight": torch.zeros(2, 1).double()}, {"weight": torch.tensor([[1.0], [-1.0]]).double()})
    xs, ys = torch.tensor([-1.0, 0.0, 1.0]).double(), torch.zeros(1).double()
    for label, right in ((0, [0.0, 1.0, 1.0]), (1, [1.0, 0.0, 0.0])):
        samples = [(torch.ones(1, 1).double(), torch.tensor([label]))]
        found = linear_scores(plane, samples, xs, ys)
        assert found.accuracies.flatten().tolist() == right
        _check(found, oracle(head, plane, samples, xs, ys, CrossEntropy()))
    binary = Plane({"weight": torch.zeros(1, 1).double()}, {"weight": torch.ones(1, 1).double()})
    for label, right in ((0, [1.0, 1.0, 0.0]), (1, [0.0, 0.0, 1.0])):
        samples = [(torch.ones(1, 1).double(), torch.tensor([label]))]
        found = linear_scores(binary, samples, xs, ys, BinaryCrossEntropy())
        assert found.accuracies.flatten().tolist() == right


def test_a_loss_of_zero_is_zero():
    weights = {"weight": torch.tensor([[1e4], [0.0]])}
    found = linear_scores(Plane(weights, weights), [(torch.ones(2, 1), torch.tensor([0, 0]))], XS[4:], torch.zeros(1))
    assert found.losses.item() == 0.0


def test_labels_that_are_no_classes_take_the_plain_way(oracle):
    """Soft labels of a logistic loss have no margins."""
    head = nn.Linear(3, 2, dtype=FLOAT64)
    samples, plane = [(torch.randn(5, 3, dtype=FLOAT64), torch.rand(5, 2, dtype=FLOAT64))], _plane(head)
    found = linear_scores(plane, samples, XS, YS, BinaryCrossEntropy())
    expected = oracle(head, plane, samples, XS, YS, BinaryCrossEntropy())
    torch.testing.assert_close(found.losses, expected.losses, **EXACT)


def test_a_subclass_that_computes_something_else_is_not_taken_for_its_parent(oracle):
    class Doubled(CrossEntropy):
        def __call__(self, logits, labels):
            return 2 * CrossEntropy.__call__(self, logits, labels)

    head = nn.Linear(3, 3, dtype=FLOAT64)
    samples, plane = [(torch.randn(5, 3, dtype=FLOAT64), torch.randint(3, (5,)))], _plane(head)
    _check(linear_scores(plane, samples, XS, YS, Doubled()), oracle(head, plane, samples, XS, YS, Doubled()))


def test_rows_are_read_in_blocks(oracle, monkeypatch):
    monkeypatch.setattr("fishr.landscape.linear_surface._CHUNK", 30)
    head = nn.Linear(3, 4, dtype=FLOAT64)
    samples, plane = [(torch.randn(11, 3, dtype=FLOAT64), torch.randint(4, (11,)))], _plane(head)
    _check(linear_scores(plane, samples, XS, YS), oracle(head, plane, samples, XS, YS, CrossEntropy()))


def test_float32_stays_as_close_as_direct_evaluation():
    torch.manual_seed(1)
    head, features, labels = nn.Linear(50, 7), torch.randn(40, 50), torch.randint(7, (40,))
    first, second = random_directions(weights_of(head), 0).vectors
    plane = Plane(weights_of(head), first, second)
    found = linear_scores(plane, [(features, labels)], XS, YS)
    wide = Plane(*({name: value.double() for name, value in w.items()} for w in (plane.center, first, second)))
    exact = linear_scores(wide, [(features.double(), labels)], XS, YS)
    torch.testing.assert_close(found.losses, exact.losses, atol=1e-6, rtol=1e-6)


def test_half_precision_features_are_widened():
    plane = Plane({"weight": torch.ones(2, 3)}, {"weight": torch.ones(2, 3)})
    assert affine_logits(plane, torch.ones(1, 3, dtype=torch.float16)).dtype == torch.float32


def test_weights_that_are_not_finite_give_nan():
    weights = {"weight": torch.tensor([[torch.inf], [0.0]]).double()}
    direction = {"weight": torch.ones(2, 1).double()}
    data = (torch.zeros(1, 1).double(), torch.tensor([0]))
    assert linear_scores(Plane(weights, direction), [data], XS, torch.zeros(1)).losses.isnan().all()


def test_labels_that_the_loss_does_not_take_are_refused():
    plane = _plane(torch.nn.Linear(4, 3).to(FLOAT64))
    with pytest.raises(InputError, match=r"got labels from 1 to 3.*subtract 1"):
        linear_scores(plane, [(torch.randn(3, 4, dtype=FLOAT64), torch.tensor([1, 2, 3]))], XS, YS, CrossEntropy())
