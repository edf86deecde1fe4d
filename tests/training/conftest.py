"""Small experiments that together use everything a state can hold."""

import attrs
import pytest
from torch import nn

from fishr.data.batches import FullBatch, Minibatch
from fishr.data.digits import ColoredDigits
from fishr.losses import BinaryCrossEntropy, CrossEntropy
from fishr.models.featurizers import MLP
from fishr.models.heads import LinearHead
from fishr.models.initialization import xavier_linear
from fishr.penalties import ERM, Fishr, Scaled, StepSchedule, Total, VREx
from fishr.tensor_trees import named_tensors
from fishr.training.experiment import Experiment
from fishr.training.objective import Objective
from fishr.training.optimizers import Adam
from fishr.training.sgd import SGD


@attrs.frozen
class Noisy:
    """Dropout draws random numbers in every step, batch normalization moves buffers."""

    width: int = 6

    def __call__(self, shape, generator):
        inputs = 1
        for size in shape:
            inputs *= size
        layers = [nn.Flatten(), xavier_linear(inputs, self.width, generator), nn.BatchNorm1d(self.width)]
        return nn.Sequential(*layers, nn.ReLU(), nn.Dropout(0.5)).to(generator.device)

    def features(self, shape):
        return self.width


def _plain() -> Experiment:
    fishr = Scaled(Fishr(over_parameters="sum", over_domains="sum"), StepSchedule(at=3, before=1.0, after=9000.0))
    return Experiment(
        name="plain",
        data=ColoredDigits(training_images=200),
        featurizer=MLP(widths=(7, 6)),
        head=LinearHead(),
        loss=BinaryCrossEntropy(),
        objective=Objective(risk=ERM(over="domains"), penalty=Total(fishr=fishr), l2=0.001, rescale=True),
        optimizer=Adam(lr=0.01),
        batches=FullBatch(),
        steps=7,
        evaluate_every=2,
        checkpoint_every=3,
    )


def _everything() -> Experiment:
    penalty = Total(
        fishr=Scaled(Fishr(ema=0.9), StepSchedule(at=3, before=0.0, after=50.0)),
        rex=Scaled(VREx(), StepSchedule(at=0, before=0.0, after=0.5)),
    )
    return attrs.evolve(
        _plain(),
        name="everything",
        featurizer=Noisy(),
        loss=CrossEntropy(),
        objective=Objective(penalty=penalty, l2=0.01, fresh_optimizer_at=4),
        batches=Minibatch(size=9),
        seed=5,
    )


def _momentum() -> Experiment:
    return attrs.evolve(_everything(), name="momentum", optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=0.01), seed=6)


EXPERIMENTS = {"plain": _plain, "everything": _everything, "momentum": _momentum}


@pytest.fixture(params=EXPERIMENTS)
def experiment(request) -> Experiment:
    return EXPERIMENTS[request.param]()


@pytest.fixture
def plain() -> Experiment:
    return _plain()


@pytest.fixture
def everything() -> Experiment:
    return _everything()


def _bits(tree):
    return {name: tensor.detach().cpu().contiguous().numpy().tobytes() for name, tensor in named_tensors(tree)}


@pytest.fixture
def bits():
    """The bytes of all tensors of a tree, by path."""
    return _bits


@pytest.fixture
def same():
    """Whether two trees hold the same tensors, bit for bit."""

    return lambda one, other: _bits(one) == _bits(other)
