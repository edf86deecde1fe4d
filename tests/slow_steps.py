"""A small network with batch normalization in float64, and a plain loop over it, which descents are compared with."""

from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.losses import CrossEntropy
from fishr.models import LinearHead
from fishr.penalties import ERM
from fishr.protocols import colored_digits
from fishr.training import SGD, Experiment, Objective, advance
from fishr.training.model import Model, build_modules
from fishr.training.state import first_state
from fishr.types import DomainBatch

FLOAT64 = torch.float64
EXACT = {"atol": 1e-11, "rtol": 1e-11}


@frozen
class Network:
    """A layer and batch normalization in float64."""

    dropout: float = 0.0

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        layer = nn.Linear(shape[0], 5)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
        return nn.Sequential(layer, nn.BatchNorm1d(5), nn.Dropout(self.dropout)).double()

    def features(self, shape: tuple[int, ...]) -> int:
        return 5


@frozen
class Top:
    def __call__(self, features: int, outputs: int, generator: torch.Generator) -> nn.Module:
        return LinearHead()(features, outputs, generator).double()


def experiment(descent: Any, **changes: Any) -> Experiment:
    parts: dict[str, Any] = {
        "featurizer": Network(),
        "head": Top(),
        "loss": CrossEntropy(),
        "objective": Objective(risk=ERM("domains"), l2=0.01),
        "optimizer": SGD(lr=0.3, momentum=0.9),
        "descent": descent,
    }
    return attrs.evolve(colored_digits(), **parts | changes)


def batch_of(step: int) -> DomainBatch:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(15, 4, generator=generator, dtype=FLOAT64)
    return DomainBatch(inputs, torch.randint(3, (15,), generator=generator), (4, 5, 6))


def build(made: Experiment) -> Model:
    return build_modules(made, (4,), 3, torch.device("cpu"))


def trained(made: Experiment, steps: int = 4) -> Any:
    model = build(made)
    state, found = first_state(made, model, 3), list[Any]()
    for step in range(steps):
        state, record = advance(model, made, state, batch_of(step))
        found.append(record)
    return state, found


class ByHand:
    """The same network, and a plain loop over it."""

    def __init__(self, made: Experiment) -> None:
        model = build(made)
        self.module = nn.ModuleDict({"featurizer": model.featurizer, "head": model.head})
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.3, momentum=0.9)

    def risks(self, batch: DomainBatch, domains: tuple[int, ...]) -> Tensor:
        """[K], of domains that pass through the network together."""
        starts = [sum(batch.sizes[:k]) for k in range(3)]
        rows = torch.cat([torch.arange(starts[k], starts[k] + batch.sizes[k]) for k in domains])
        logits = self.module["head"](self.module["featurizer"](batch.inputs[rows]))
        losses = nn.functional.cross_entropy(logits, batch.labels[rows], reduction="none")
        return torch.stack([part.mean() for part in losses.split([batch.sizes[k] for k in domains])])

    def loss(self, batch: DomainBatch, domains: tuple[int, ...]) -> Tensor:
        decay = torch.stack([p.square().sum() for p in self.module.parameters()]).sum()
        return self.risks(batch, domains).mean() + 0.01 * decay

    def gradients(self, batch: DomainBatch, domains: tuple[int, ...]) -> list[Tensor]:
        return [*torch.autograd.grad(self.loss(batch, domains), list(self.module.parameters()))]

    def update(self, gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(self.module.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def numbers(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.module.state_dict().items()}


def check(hand: ByHand, state: Any) -> None:
    for name, value in hand.numbers().items():
        assert_close((state.parameters | state.buffers)[name], value, **EXACT)
