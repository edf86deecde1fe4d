"""URM: features that a discriminator takes for uniform noise."""

from collections import OrderedDict
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from fishr.checks import number, one_of, whole
from fishr.errors import InputError
from fishr.methods.method import Hparams, Method
from fishr.methods.ranges import Range, choice, fixed, power, uniform
from fishr.methods.ranges import whole as whole_of
from fishr.mixed_samples import refuse_mixed_samples
from fishr.models.featurizers import Featurizer
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total
from fishr.training.objective import Objective
from fishr.training.optimizers import Adam, Optimizer
from fishr.training.owned import Owned, applied, template
from fishr.types import Problem

Activation = Literal["tanh", "relu"]
_WIDTH = 100


@frozen
class Activated:
    """Featurizer whose features pass through an activation, also in prediction.

    Args:
        inner: the network.
        activation: ``"tanh"`` or ``"relu"``.

    Raises:
        InputError: another activation; when called, a network whose features depend on the other samples.

    Example:
        >>> from fishr.models import MLP
        >>> featurizer = Activated(MLP(widths=()), "relu")((2,), torch.Generator())
        >>> featurizer(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
    """

    inner: Featurizer
    activation: Activation = field(default="tanh", validator=one_of("tanh", "relu"))

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from inputs [N, *shape] to features [N, F], with weights drawn from the generator."""
        network = self.inner(shape, generator)
        refuse_mixed_samples(network, "inner", "activate the network that it wraps")
        activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[self.activation]()
        return nn.Sequential(OrderedDict(network=network, activation=activation))

    def features(self, shape: tuple[int, ...]) -> int:
        """Return F, that of the network."""
        return self.inner.features(shape)


@frozen
class URM:
    """mean_i BCE(d(z_i), 1), with a discriminator d of noise, 1, and features, 0, that learns in each step.

    The discriminator minimizes mean_i BCE(d(u_i), 1) + a · mean_i BCE(d(z_i), 0), with u uniform and BCE the binary
    cross-entropy of logits. It is an MLP of width 100 with leaky ReLU, and the state, see ``Owned``. Its step and the
    penalty are both of its weights before the step. The noise has as many samples as the batch. Combine it with
    ``Activated``.

    Args:
        features: a, the weight of features in what the discriminator minimizes.
        hidden: layers between the first, of F inputs, and the last, of one output.
        low: lower end of the noise, −1 for tanh, 0 for ReLU; the upper end is 1.
        optimizer: of the discriminator.

    Raises:
        InputError: a number outside its range; in ``init``, a problem of unknown width.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> head, penalty = nn.Linear(3, 2), URM()
        >>> batch = DomainBatch(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]), sizes=(2, 2))
        >>> state = penalty.init(Problem.of(head, domains=2))
        >>> value, state = penalty(observe(nn.Identity(), head, batch, seed=0), state, step=0)
        >>> value.shape, state.memory.steps[0]
        (torch.Size([]), 1)

    Source:
        Krishnamachari et al., Uniformly distributed feature representations for fair and robust learning, TMLR 2024.
    """

    features: float = field(default=0.1, validator=number())
    hidden: int = field(default=1, validator=whole(0))
    low: float = field(default=-1.0, validator=number(least=-1.0, below=1.0))
    optimizer: Optimizer = Adam(lr=5e-5)  # noqa: RUF009 (immutable)

    def init(self, problem: Problem) -> Owned:
        """Return the first discriminator."""
        return Owned.of(partial(self._network, problem.widths("URM")[0]), self.optimizer, problem, "discriminator")

    def __call__(self, seen: Observation, state: Owned, step: int) -> tuple[Tensor, Owned]:
        """Return the penalty, 0-dim, and the discriminator after the step."""
        leaves = state.leaves()
        discriminate = partial(applied, template(partial(self._network, seen.features.shape[1])), leaves)
        noise = self.low + (1 - self.low) * uniform_like(seen)
        fake, value = discriminate(seen.features.detach()), discriminate(seen.features)
        true = discriminate(noise)
        own = bce(true, torch.ones_like(true)) + self.features * bce(fake, torch.zeros_like(fake))
        return bce(value, torch.ones_like(value)), state.trained(own, leaves, self.optimizer, seen)

    def _network(self, inputs: int) -> nn.Module:
        widths = [inputs, *[_WIDTH] * (self.hidden + 1)]
        layers = OrderedDict[str, nn.Module]()
        for index, (before, after) in enumerate(pairwise(widths), start=1):
            layers |= {f"dense{index}": nn.Linear(before, after), f"relu{index}": nn.LeakyReLU()}
        return nn.Sequential(layers | {"output": nn.Linear(_WIDTH, 1)})


def uniform_like(seen: Observation) -> Tensor:
    """Return noise from 0 to 1 of the features' shape, the same on all ranks."""
    features = seen.features
    return torch.rand(features.shape, generator=seen.generator("URM"), dtype=features.dtype).to(features.device)


# The others are never drawn.
_ONLY = {"urm": "adversarial", "urm_discriminator_label_smoothing": 0, "urm_discriminator_optimizer": "adam"}


def _objective(h: Hparams) -> Objective:
    for name, value in _ONLY.items():
        if h[name] != value:
            raise InputError(f"{name}: got {h[name]!r}, expected {value!r}; no other is implemented")
    weight, low = h["urm_adv_lambda"], -1.0 if h["urm_generator_output"] == "tanh" else 0.0
    optimizer = Adam(lr=h["urm_discriminator_lr"], weight_decay=h["weight_decay"])
    penalty = URM(weight, h["urm_discriminator_hidden_layers"], low, optimizer)
    return Objective(penalty=Total(urm=Scaled(penalty, weight)))


def _rates_on(dataset: str) -> dict[str, Range]:
    small = dataset in ("RotatedMNIST", "ColoredMNIST")
    return {"urm_discriminator_lr": Range(1e-3, power(-5.5, -3.5)) if small else Range(5e-5, power(-6, -4.5))}


METHODS = {
    "URM": Method(
        {
            "urm": fixed("adversarial"),
            "urm_adv_lambda": Range(0.1, uniform(0, 0.2)),
            "urm_discriminator_label_smoothing": Range(0, uniform(0, 0)),
            "urm_discriminator_optimizer": fixed("adam"),
            "urm_discriminator_hidden_layers": Range(1, whole_of(choice((1, 2, 3)))),
            "urm_generator_output": Range("tanh", choice(("tanh", "relu"))),
        },
        _objective,
        ranges_of=_rates_on,
        featurizer=lambda inner, h: Activated(inner, h["urm_generator_output"]),
    )
}
