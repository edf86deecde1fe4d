"""SagNet: contents with the styles of others for the head, and features from which no head can read the style."""

import torch
from attrs import evolve, field, frozen
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from fishr.checks import number
from fishr.descents.descent import Descended, Gradients, NamedOptimizer, Weights
from fishr.errors import InputError
from fishr.losses import per_sample_losses
from fishr.methods.method import Method, head_logits, require_classes
from fishr.methods.ranges import Range, power
from fishr.observation import Observation
from fishr.penalties.penalty import Memoryless
from fishr.seeding import named_generator
from fishr.statistics.pure_forward import twin
from fishr.training.objective import Objective
from fishr.training.optimizers import Adam
from fishr.training.owned import Owned

_EPS = 1e-5
_HEAD = "head."
State = dict[str, Owned]


def draws_of(seen: Observation, name: str) -> tuple[Tensor, Tensor]:
    """Return a share for each sample, uniform on 0 to 1, [N, 1], and a permutation of the samples."""
    generator, features = seen.generator(f"sagnet {name}"), seen.features
    shares = torch.rand(len(features), 1, generator=generator, dtype=torch.float64)
    order = torch.randperm(len(features), generator=generator)
    return shares.to(features.device, features.dtype), order.to(features.device)


def _parts(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return content, mean and variance of each sample, over its features."""
    mean, variance = features.mean(1, keepdim=True), features.var(1, keepdim=True)
    return (features - mean) / (variance + _EPS).sqrt(), mean, variance


@frozen
class StyleRandomized(Memoryless):
    """Mean loss of the head on features in mixed styles: c_i · √(s + ε) + m; a risk.

    c_i = (z_i − μ_i) / √(σ_i² + ε) is the content of a sample, its style are mean μ_i and variance σ_i² (over F − 1) of
    its features, and ε = 10⁻⁵. m = a_i μ_i + (1 − a_i) μ_j and s = a_i σ_i² + (1 − a_i) σ_j² mix the style with that of
    another sample j of the batch, by a random permutation and shares a_i, uniform on 0 to 1.

    Raises:
        InputError: When called, an observation without a seed, or a single feature.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), sizes=(2, 2))
        >>> seen = observe(torch.nn.Identity(), torch.nn.Linear(3, 2), batch, seed=0)
        >>> StyleRandomized()(seen, (), step=0)[0].shape
        torch.Size([])

    Source:
        Nam et al., Reducing domain gap by reducing style bias, CVPR 2021 (arXiv 1910.11645); on the features of the
        last layer as in DomainBed.
    """

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the risk, 0-dim, in the loss's unit."""
        features = seen.features.flatten(1)
        if features.shape[1] < 2:
            raise InputError("StyleRandomized: got a single feature, expected at least 2, which have a variance")
        content, mean, variance = _parts(features)
        shares, order = draws_of(seen, "content")
        mean = shares * mean + (1 - shares) * mean[order]
        variance = shares * variance + (1 - shares) * variance[order]
        logits = head_logits(seen, (content * (variance + _EPS).sqrt() + mean).view_as(seen.features))
        return per_sample_losses(seen.loss, logits, seen.labels).mean(), state


@frozen
class SagNet:
    """Two updates: the first by the objective, the second of the featurizer against a head that reads styles.

    The second update is by w · mean_i −(1/C) Σ_c log p_c(i), where p is the softmax of a style head on the contents of
    other samples in the style of each: c_j · √(σ_i² + ε) + μ_i, with c_j a constant. The style head has the structure
    of the head, and learns its cross-entropy with the labels by one update of Adam before, on other draws of the same
    features. Both are measured after the first update. The optimizer of the network goes on through both updates.

    The first weights of the style head are those of the head in random order. ``StyleRandomized`` is the objective's
    risk that belongs to it.

    Args:
        weight: w.
        lr: Learning rate of the style head.
        weight_decay: Its weight decay.

    Raises:
        InputError: A number outside its range. In a step: labels that are no class indices. Before the first step: a
            head without trained weights.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training import Objective
        >>> made = attrs.evolve(colored_digits(), descent=SagNet(0.1), objective=Objective(risk=StyleRandomized()))
        >>> made.descent
        SagNet(weight=0.1, lr=5e-05, weight_decay=0.0)

    Source:
        As of ``StyleRandomized``.
    """

    weight: float = field(default=0.1, validator=number())
    lr: float = field(default=5e-5, validator=number(above=True))
    weight_decay: float = field(default=0.0, validator=number())

    def init(self, weights: Weights) -> State:
        """Return the style head."""
        head = head_of(weights, "SagNet")
        draws = named_generator(0, "sagnet")
        shuffled = {
            name: weight.flatten()[torch.randperm(weight.numel(), generator=draws).to(weight.device)].view_as(weight)
            for name, weight in head.items()
        }
        return {"style": Owned(shuffled, {}, self._optimizer.init(tuple(shuffled.values())))}

    @property
    def _optimizer(self) -> Adam:
        return Adam(self.lr, weight_decay=self.weight_decay)

    def __call__(
        self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights, memory: object, state: State
    ) -> Descended:
        """Return the outcome of two gradients and two updates, and of one of the style head."""
        first = gradients(weights)
        moved, memory = optimizer.update(first.gradients, memory, weights)
        second = gradients(moved, after=first, risk=self._against_styles, state=state["style"])
        moved, memory = optimizer.update(second.gradients, memory, moved)
        return Descended(moved, memory, {"style": second.risk}, evolve(first, buffers=second.buffers))

    def _against_styles(self, seen: Observation, state: Owned, step: int) -> tuple[Tensor, Owned]:
        """Return the value that the featurizer lowers, against the style head after its update."""
        require_classes(seen, "SagNet")
        content, mean, variance = _parts(seen.features.flatten(1))

        def logits(name: str, style: dict[str, Tensor], mean: Tensor, variance: Tensor) -> Tensor:
            _, order = draws_of(seen, name)
            features = content[order].detach() * (variance + _EPS).sqrt() + mean
            return functional_call(twin(seen.head), style, (features.view_as(seen.features),))

        leaves = state.leaves()
        learned = logits("style", leaves, mean.detach(), variance.detach())
        losses = cross_entropy(learned, seen.labels)
        state = state.trained(losses, leaves, self._optimizer, seen)
        against = logits("adversary", state.parameters, mean, variance)
        return -self.weight * against.log_softmax(1).mean(), state


def head_of(weights: Weights, name: str) -> Weights:
    """Return the trained weights of the head by their names below it."""
    found = {key.removeprefix(_HEAD): weight for key, weight in weights.items() if key.startswith(_HEAD)}
    if not found:
        raise InputError(f"{name}: got a head without trained weights, expected some; train the head")
    return found


METHODS = {
    "SagNet": Method(
        {"sag_w_adv": Range(0.1, power(-2, 1))},
        lambda h: Objective(risk=StyleRandomized()),
        lambda h: {"descent": SagNet(h["sag_w_adv"], h["lr"], h["weight_decay"])},
    )
}
