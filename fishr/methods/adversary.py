"""A discriminator that learns against the network, in turns or together."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from attrs import field, frozen
from torch import Tensor, nn

from fishr.checks import number, whole
from fishr.methods.ranges import Range, choice, fixed, power
from fishr.methods.ranges import whole as whole_of
from fishr.observation import Observation
from fishr.training.optimizers import Adam, Optimizer
from fishr.training.owned import Owned

Form = Literal["domainbed", "paper"]


@frozen
class Adversary:
    """Settings of a discriminator, an MLP with ReLU, and of the steps in which it learns.

    Args:
        width: outputs of each hidden layer.
        depth: linear layers.
        dropout: rate after each hidden layer.
        steps: d, updates of the discriminator for each of the network, where they take turns.
        gradient_penalty: ρ, factor of mean_i ‖∂ Σ ℓ / ∂z_i‖², with ℓ the discriminator's losses and z its inputs.
        optimizer: of the discriminator.

    Raises:
        InputError: a number outside its range.

    Example:
        >>> adversary = Adversary(width=5, depth=2, steps=2)
        >>> [adversary.learns(step) for step in range(6)]
        [True, False, True, True, False, True]
        >>> adversary.network(3, 4)(torch.zeros(1, 3)).shape
        torch.Size([1, 4])
    """

    width: int = field(default=256, validator=whole(1))
    depth: int = field(default=3, validator=whole(2))
    dropout: float = field(default=0.0, validator=number(below=1.0))
    steps: int = field(default=1, validator=whole(1))
    gradient_penalty: float = field(default=0.0, validator=number())
    optimizer: Optimizer = Adam(lr=5e-5, betas=(0.5, 0.9))  # noqa: RUF009 (immutable)

    def network(self, inputs: int, outputs: int) -> nn.Module:
        """Return the discriminator, with weights drawn by torch's global generator."""
        widths = [inputs, *[self.width] * (self.depth - 1)]
        names = ["input", *(f"hidden{index}" for index in range(self.depth - 2))]
        layers = OrderedDict[str, nn.Module]()
        for index, name in enumerate(names):
            layers[name] = nn.Linear(widths[index], self.width)
            layers |= {f"{name}_dropout": nn.Dropout(self.dropout)} if self.dropout else {}
            layers[f"{name}_relu"] = nn.ReLU()
        return nn.Sequential(layers | {"output": nn.Linear(self.width, outputs)})

    def learns(self, step: int) -> bool:
        """Return whether a step is the discriminator's turn: (step + 1) mod (1 + d) < d."""
        return (step + 1) % (1 + self.steps) < self.steps

    def penalized(self, value: Tensor, losses: Tensor, inputs: Tensor) -> Tensor:
        """Return a value plus the penalty on the slopes of the discriminator's losses, [N], of inputs [N, F]."""
        if not self.gradient_penalty:
            return value
        (slopes,) = torch.autograd.grad(losses.sum(), inputs, create_graph=True)
        return value + self.gradient_penalty * slopes.square().sum(1).mean()

    def contested(
        self,
        value: Tensor,
        risk: Callable[[], Tensor],
        leaves: dict[str, Tensor],
        state: Owned,
        step: int,
        seen: Observation,
        together: bool,
    ) -> tuple[Tensor, Owned]:
        """Return the risk of a step and the discriminator after it.

        Args:
            value: what the discriminator minimizes.
            risk: the network's risk, computed where it learns.
            leaves: of the state, by which the value was computed.
            together: both learn in every step.
        """
        turn = self.learns(step)
        if together or turn:
            state = state.trained(value, leaves, self.optimizer, seen)
        return (risk() if together or not turn else value.detach()), state


def with_graph(features: Tensor) -> Tensor:
    """Return features that gradients can be taken by, also where no layer below them is trained."""
    return features if features.requires_grad else features.detach().requires_grad_()


RANGES: Mapping[str, Range] = {
    "lambda": Range(1.0, power(-2, 2)),
    "weight_decay_d": Range(0.0, power(-6, -2)),
    "d_steps_per_g_step": Range(1, whole_of(power(0, 3, base=2))),
    "grad_penalty": Range(0.0, power(-2, 1)),
    "beta1": Range(0.5, choice((0.0, 0.5))),
    "mlp_width": Range(256, whole_of(power(6, 10, base=2))),
    "mlp_depth": Range(3, whole_of(choice((3, 4, 5)))),
    "mlp_dropout": Range(0.0, choice((0.0, 0.1, 0.5))),
}


def rates_on(dataset: str) -> Mapping[str, Range]:
    """Return the learning rates and weight decay of network and discriminator on a data set."""
    small = dataset in ("RotatedMNIST", "ColoredMNIST")
    rate = Range(1e-3, power(-4.5, -2.5)) if small else Range(5e-5, power(-5, -3.5))
    decay = fixed(0.0) if small else Range(0.0, power(-6, -2))
    return {"lr_g": rate, "lr_d": rate, "weight_decay_g": decay}


def adversary_of(hparams: Mapping[str, Any]) -> Adversary:
    """Return the discriminator of hyper-parameters of DANN's names."""
    h = hparams
    optimizer = Adam(lr=h["lr_d"], betas=(h["beta1"], 0.9), weight_decay=h["weight_decay_d"])
    shape = (h["mlp_width"], h["mlp_depth"], h["mlp_dropout"])
    return Adversary(*shape, h["d_steps_per_g_step"], h["grad_penalty"], optimizer)


def changes_of(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the optimizer of the network of hyper-parameters of DANN's names."""
    h = hparams
    return {"optimizer": Adam(lr=h["lr_g"], betas=(h["beta1"], 0.9), weight_decay=h["weight_decay_g"])}
