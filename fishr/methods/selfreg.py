"""SelfReg: samples of one class have the logits and the features of each other."""

from functools import partial
from typing import Literal

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor, nn

from fishr.checks import number, one_of
from fishr.methods.method import Method, require_classes
from fishr.observation import Observation
from fishr.penalties.combinators import Total
from fishr.training.objective import Objective
from fishr.training.optimizers import Adam
from fishr.training.owned import Owned, applied, template
from fishr.types import Problem

_OF_FEATURES = 0.3
_ALPHA = 0.5


@frozen
class SelfReg:
    """min(R, 1) · [λ (d(f, f′) + 0.3 d(z, p′)) + (1 − λ) (d(f, f*) + 0.3 d(z, p*))], with the mean squared distance d.

    f are logits, z features, and p projections of z. A prime takes each sample's from another of its class, by a random
    permutation; a star mixes those of two permutations, * = λ ′ + (1 − λ) ″. λ is drawn from Beta(0.5, 0.5) once a
    step. R, the mean loss, is a constant here. The projector has three linear layers with batch normalization, of F, 2F
    and 2F features (2,048 throughout for 2,048), with ReLU between them.

    Args:
        form: ``"paper"`` trains the projector on the value too, by Adam at the rate ``lr``; with ``"domainbed"`` it
            keeps its first weights, because it is in no optimizer there.
        lr: Learning rate of the projector, for ``form = "paper"``.

    Raises:
        InputError: A learning rate that is not greater than 0. When called: labels that are no class indices, or an
            observation without a seed.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> head = nn.Linear(2, 2)
        >>> penalty, problem = SelfReg(), Problem.of(head, domains=1)
        >>> batch = DomainBatch(torch.randn(2, 2), torch.tensor([0, 1]), sizes=(2,))
        >>> value, state = penalty(observe(nn.Identity(), head, batch, seed=0), penalty.init(problem), 0)
        >>> sorted(state.parameters)[:4], value > 0  # a sample without others of its class has its own projection
        (['0.bias', '0.weight', '1.bias', '1.weight'], tensor(True))

    Source:
        Kim et al., SelfReg, ICCV 2021 (arXiv 2104.09841).
    """

    form: Literal["domainbed", "paper"] = field(default="domainbed", validator=one_of("domainbed", "paper"))
    lr: float = field(default=5e-5, validator=number(above=True))

    def init(self, problem: Problem) -> Owned:
        """Return the projector."""
        features, _ = problem.widths("SelfReg")
        return Owned.of(partial(_projector, features), Adam(self.lr), problem, "projector")

    def __call__(self, seen: Observation, state: Owned, step: int) -> tuple[Tensor, Owned]:
        """Return the penalty, 0-dim, and the projector after it."""
        require_classes(seen, "SelfReg")
        features, logits, leaves = seen.features.flatten(1), seen.logits, state.leaves()
        projected = applied(template(partial(_projector, features.shape[1])), leaves, features)
        share, first, second = draws_of(seen)

        def distances(mixed: Tensor, also: Tensor) -> Tensor:
            return (logits - mixed).square().mean() + _OF_FEATURES * (features - also).square().mean()

        pair = distances(logits[first], projected[first])
        mixtures = (share * rows[first] + (1 - share) * rows[second] for rows in (logits, projected))
        scale = seen.losses.detach().mean().clamp(max=1.0)
        value = scale * (share * pair + (1 - share) * distances(*mixtures))
        return value, state.trained(value, leaves, Adam(self.lr), seen) if self.form == "paper" else state


def _projector(features: int) -> nn.Module:
    hidden = features if features == 2048 else 2 * features
    layers = list[nn.Module]()
    for before, after in ((features, hidden), (hidden, hidden), (hidden, features)):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after, track_running_stats=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def draws_of(seen: Observation) -> tuple[float, Tensor, Tensor]:
    """Return λ and, for each sample, two of its class: of two random permutations of each class."""
    generator = seen.generator("selfreg")
    # torch has no public Beta distribution that takes a generator.
    numpy = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    found = torch.arange(len(seen.labels)).repeat(2, 1)
    for label in seen.labels.unique().cpu():
        rows = (seen.labels.cpu() == label).nonzero().squeeze(1)
        for partners in found:
            partners[rows] = rows[torch.randperm(len(rows), generator=generator)]
    first, second = found.to(seen.labels.device)
    return float(numpy.beta(_ALPHA, _ALPHA)), first, second


METHODS = {"SelfReg": Method(objective=lambda h: Objective(penalty=Total(selfreg=SelfReg())))}
