"""Samples without a label are in no score and no gradient of a landscape."""

import torch
from cases import EXACT, FLOAT64
from torch import nn
from torch.testing import assert_close

from fishr.landscape import Plane, linear_scores, network_scores, random_directions, weights_of
from fishr.landscape.directions import domain_gradient
from fishr.losses import CrossEntropy

AXIS = torch.tensor([-0.5, 0.0, 1.0])


def test_surfaces_and_gradients_are_those_of_the_labeled_samples():
    loss, head = CrossEntropy(ignore_index=-1), nn.Linear(4, 3).to(FLOAT64)
    inputs, labels = torch.randn(7, 4, dtype=FLOAT64), torch.tensor([0, -1, 2, 1, -1, -1, 0])
    every, kept = (inputs, labels), (inputs[labels != -1], labels[labels != -1])
    center = weights_of(head)
    plane = Plane(center, *random_directions(center, seed=0).vectors)
    expected = network_scores(head, plane, [kept], AXIS, AXIS)
    for scores in (
        linear_scores(plane, [every], AXIS, AXIS, loss),
        network_scores(head, plane, [every], AXIS, AXIS, loss, chunk=2),
    ):
        assert_close((scores.losses, scores.accuracies), (expected.losses, expected.accuracies), **EXACT)
    assert_close(domain_gradient(head, *every, loss, chunk=3), domain_gradient(head, *kept, CrossEntropy()), **EXACT)
