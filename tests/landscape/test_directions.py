"""Directions: filters as long as the weights', orthonormal planes, the points where they belong."""

import math

import pytest
import torch
from cases import FLOAT64
from torch import nn

from fishr.errors import InputError
from fishr.landscape import (
    Directions,
    Plane,
    checkpoint_directions,
    chord,
    eigen_directions,
    gradient_directions,
    linear_scores,
    pca_directions,
    random_directions,
    random_lines,
    weights_of,
)
from fishr.landscape.directions import domain_gradient
from fishr.landscape.plane import flattened
from fishr.losses import CrossEntropy


def _network():
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4)).double()


def _walk(count, size=6):
    return [{"w": torch.randn(size, dtype=FLOAT64), "b": torch.randn(2, dtype=FLOAT64)} for _ in range(count)]


def test_every_filter_is_as_long_as_the_weights_own():
    weights = weights_of(_network())
    first, second = random_directions(weights, seed=1).vectors
    for direction in (first, second):
        for name, value in weights.items():
            if value.ndim < 2:
                assert not direction[name].any()
            else:
                for drawn, own in zip(direction[name], value, strict=True):
                    torch.testing.assert_close(drawn.norm(), own.norm())
    cosine = flattened(first) @ flattened(second) / flattened(first).norm() / flattened(second).norm()
    assert abs(cosine) < 0.7


def test_a_filter_of_zeros_does_not_move():
    weights = {"weight": torch.tensor([[0.0, 0.0], [3.0, 4.0]])}
    (direction,) = random_directions(weights, 0, count=1).vectors
    assert not direction["weight"][0].any()
    torch.testing.assert_close(direction["weight"][1].norm(), torch.tensor(5.0))


def test_a_seed_decides_the_directions_and_lines_are_the_same():
    weights = weights_of(_network())
    one, again, other = (random_directions(weights, seed).vectors for seed in (3, 3, 4))
    assert all(torch.equal(one[0][name], again[0][name]) for name in weights)
    assert not torch.equal(one[0]["0.weight"], other[0]["0.weight"])
    lines = random_lines(weights, seed=3, count=4)
    assert (lines.kind, lines.seed, len(lines.vectors)) == ("line", 3, 4)
    assert torch.equal(lines.vectors[1]["0.weight"], one[1]["0.weight"])
    assert not torch.equal(lines.vectors[3]["0.weight"], one[1]["0.weight"])


def test_global_generator_is_left_alone():
    state = torch.get_rng_state()
    random_directions({"w": torch.ones(2, 2)}, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("weights", [{"bias": torch.ones(3)}, {"weight": torch.zeros(2, 2)}])
def test_weights_without_a_direction_are_refused(weights):
    with pytest.raises(InputError, match="'random direction 1': got one of length 0"):
        random_directions(weights, 0)


def test_principal_components_are_those_of_the_differences():
    walk = _walk(5)
    found = pca_directions(walk, [f"step {i}" for i in range(5)])
    axes = torch.stack([flattened(vector) for vector in found.vectors])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=FLOAT64))
    steps = torch.stack([flattened(w) - flattened(walk[-1]) for w in walk])
    torch.testing.assert_close(found.points, steps @ axes.T)
    values = torch.linalg.eigvalsh(steps.T @ steps).flip(0)
    torch.testing.assert_close(torch.tensor(found.explained, dtype=FLOAT64), values[:2] / values.sum())
    assert f"{found.explained[0]:.1%} of variance" in found.names[0]
    assert (found.points[0] <= 0).all()
    assert found.points[-1].tolist() == [0.0, 0.0]
    assert found.labels[-1] == "step 4"


def test_a_walk_in_a_plane_is_explained_by_it():
    basis = torch.linalg.qr(torch.randn(6, 2, dtype=FLOAT64)).Q
    walk = [{"w": basis @ torch.randn(2, dtype=FLOAT64)} for _ in range(6)]
    found = pca_directions(walk, "abcdef")
    assert sum(found.explained) == pytest.approx(1.0)
    for weights, (x, y) in zip(walk, found.points.tolist(), strict=True):
        back = Plane(walk[-1], *found.vectors).at(x, y)
        torch.testing.assert_close(back["w"], weights["w"])


def test_the_plane_through_three_checkpoints_holds_them():
    corners = _walk(3)
    found = checkpoint_directions(corners, ("a", "b", "c"))
    axes = torch.stack([flattened(vector) for vector in found.vectors])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=FLOAT64))
    for weights, (x, y) in zip(corners, found.points.tolist(), strict=True):
        back = Plane(corners[-1], *found.vectors).at(x, y)
        torch.testing.assert_close(flattened(back), flattened(weights))
    # Physical lengths, the first along the first axis, the second on the positive side.
    assert found.points[0, 0] == pytest.approx(float((flattened(corners[0]) - flattened(corners[2])).norm()))
    assert abs(found.points[0, 1]) < 1e-12
    assert found.points[1, 1] > 0


def test_checkpoints_on_a_line_span_no_plane():
    start, step = torch.randn(5, dtype=FLOAT64), torch.randn(5, dtype=FLOAT64)
    on_a_line = [{"w": start + i * step} for i in range(3)]
    with pytest.raises(InputError, match="pca: got checkpoints that lie on one line"):
        pca_directions(on_a_line, "abc")
    with pytest.raises(InputError, match="checkpoints: got three on one line"):
        checkpoint_directions(on_a_line, "abc")
    with pytest.raises(InputError, match="checkpoints: got three on one line"):
        checkpoint_directions([on_a_line[0]] * 3, "abc")


def test_too_few_checkpoints_or_other_shapes_are_refused():
    with pytest.raises(InputError, match="pca: got 2 checkpoints, expected at least 3"):
        pca_directions(_walk(2), "ab")
    with pytest.raises(InputError, match="checkpoints: got 2"):
        checkpoint_directions(_walk(2), "ab")
    for directions in (pca_directions, checkpoint_directions):
        with pytest.raises(InputError, match=r"parameter w: got shapes \(6,\) and \(5,\)"):
            directions([*_walk(2), _walk(1, 5)[0]], "abc")


def test_a_chord_joins_its_ends():
    start, end = _walk(2)
    found = chord(start, end, ("one", "other"))
    assert torch.equal(flattened(Plane(start, *found.vectors).at(0.0, 0.0)), flattened(start))
    torch.testing.assert_close(flattened(Plane(start, *found.vectors).at(1.0, 0.0)), flattened(end))
    with pytest.raises(InputError, match="'one to other': got one of length 0"):
        chord(start, start, ("one", "other"))


def _data(rows=9):
    return torch.randn(rows, 3, dtype=FLOAT64), torch.randint(3, (rows,))


@pytest.mark.parametrize(
    "module", [nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))], ids=["head", "network"]
)
def test_eigenvectors_are_those_of_the_dense_hessian(module):
    module, (inputs, labels) = module.double(), _data()
    found = eigen_directions(module, inputs, labels, "photo")
    weights = weights_of(module)

    def risk(flat):
        parts = flat.split([value.numel() for value in weights.values()])
        named = {name: part.reshape(weights[name].shape) for name, part in zip(weights, parts, strict=True)}
        return CrossEntropy()(torch.func.functional_call(module, named, (inputs,)), labels).mean()

    hessian = torch.autograd.functional.hessian(risk, flattened(weights))
    values = torch.linalg.eigvalsh(hessian).flip(0)
    for vector, value, name in zip(found.vectors, values, found.names, strict=False):
        flat = flattened(vector)
        torch.testing.assert_close(hessian @ flat, value * flat, atol=1e-6, rtol=1e-6)
        assert flat.norm() == pytest.approx(1.0)
        assert name.endswith(f"of photo, λ = {float(value):.3g}")


def test_the_gradient_is_that_of_the_mean_loss_and_leaves_nothing_behind():
    module, (inputs, labels) = nn.Linear(3, 3).double(), _data()
    found = domain_gradient(module, inputs, labels, CrossEntropy(), chunk=4)
    assert module.weight.grad is None
    CrossEntropy()(module(inputs), labels).mean().backward()
    torch.testing.assert_close(found, torch.cat([p.grad.flatten() for p in module.parameters()]))


def test_the_plane_of_two_gradients():
    head, one, two = nn.Linear(3, 3).double(), _data(), _data(5)
    found = gradient_directions(head, one, two, ("a", "b"))
    axes = torch.stack([flattened(vector) for vector in found.vectors])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=FLOAT64))
    for data, (x, y) in zip((one, two), found.points.tolist(), strict=True):
        gradient = domain_gradient(head, *data, CrossEntropy())
        torch.testing.assert_close(x * axes[0] + y * axes[1], -gradient / gradient.norm())
    # Along −∇ the risk of the domain falls first.
    plane, small = Plane(weights_of(head), *found.vectors), torch.tensor([0.0, 1e-3], dtype=FLOAT64)
    risks = linear_scores(plane, [one], -small, small[:1]).losses.flatten()
    slope = float(domain_gradient(head, *one, CrossEntropy()).norm())
    assert math.isclose(float(risks[0] - risks[1]), 1e-3 * slope, rel_tol=1e-2)


def test_gradients_that_are_parallel_span_no_plane():
    head, data = nn.Linear(3, 3).double(), _data()
    with pytest.raises(InputError, match="gradients: got those of 'a' and 'b' zero or parallel"):
        gradient_directions(head, data, data, ("a", "b"))


def test_vectors_of_other_shapes_are_refused():
    with pytest.raises(InputError, match="parameter w"):
        Directions("random", ({"w": torch.ones(2)}, {"w": torch.ones(3)}), ("a", "b"))
    with pytest.raises(InputError, match="got one of length nan"):
        Directions("random", ({"w": torch.tensor([torch.nan])},), ("a",))
