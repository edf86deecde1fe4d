"""The slow, obvious landscape: one grid point at a time, one forward pass of the module with its weights set."""

import copy

import pytest
import torch

from fishr.landscape import Scores
from fishr.losses import CrossEntropy


@pytest.fixture
def oracle():
    """Scores by direct evaluation in the module's own type."""

    def evaluate(module, plane, samples, xs, ys, loss):
        module = copy.deepcopy(module).eval()
        shape = (len(samples), len(xs), len(ys))
        losses, accuracies = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        for i, x in enumerate(xs.tolist()):
            for j, y in enumerate(ys.tolist()):
                for name, parameter in [*module.named_parameters(), *module.named_buffers()]:
                    if name in plane.center:
                        second = 0 if plane.second is None else y * plane.second[name]
                        parameter.data = plane.center[name] + x * plane.first[name] + second
                for k, (inputs, labels) in enumerate(samples):
                    with torch.no_grad():
                        logits = module(inputs.clone())
                        losses[k, i, j] = loss(logits, labels).double().mean()
                        predict = getattr(loss, "predictions", None)
                        soft = labels.is_floating_point()
                        target = labels.argmax(1) if soft and type(loss) is CrossEntropy else labels.round()
                        right = torch.tensor(torch.nan) if predict is None else predict(logits) == target
                        accuracies[k, i, j] = right.double().mean()
        return Scores(losses, accuracies)

    return evaluate
