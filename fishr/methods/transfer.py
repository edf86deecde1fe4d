"""Transfer: features on which no head near the network's makes the risks of domains differ."""

from typing import Literal

from attrs import evolve, field, frozen
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import get_total_norm

from fishr.checks import number, one_of, whole
from fishr.descents.descent import Descended, Gradients, NamedOptimizer, Weights
from fishr.losses import per_sample_losses
from fishr.methods.method import Method
from fishr.methods.ranges import Range, choice, power, uniform
from fishr.methods.sagnet import head_of
from fishr.observation import Observation
from fishr.statistics.pure_forward import twin
from fishr.training.owned import Owned
from fishr.training.sgd import SGD

State = dict[str, Owned]


@frozen
class Transfer:
    """Two updates: by the objective, and of the featurizer by the gap t · (max_e R_e(h') − min_e R_e(h')).

    h' is an adversarial head. Each step, after both updates, it becomes the head h plus ``ascents`` updates of SGD that
    raise the gap, each followed by the projection to the ball ‖h' − h‖ ≤ δ over all parameters of the head. The next
    step's second update is against it. The optimizer of the network goes on through both updates.

    Args:
        weight: t.
        radius: δ.
        ascents: Number of ascents.
        lr: Learning rate of the ascents.
        gda: With ``form = "domainbed"``, the network keeps its weights and h' alone moves, because DomainBed's
            optimizer then holds nothing else.
        form: With ``"paper"``, the network always trains.

    Raises:
        InputError: A number outside its range. Before the first step: a head without trained weights.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> attrs.evolve(colored_digits("erm"), descent=Transfer(radius=0.5)).descent
        Transfer(weight=1.0, radius=0.5, ascents=10, lr=0.001, gda=False, form='domainbed')

    Source:
        Zhang et al., Quantifying and improving transferability in domain generalization, NeurIPS 2021
        (arXiv 2106.03632), algorithm 1.
    """

    weight: float = field(default=1.0, validator=number())
    radius: float = field(default=2.0, validator=number())
    ascents: int = field(default=10, validator=whole(0))
    lr: float = field(default=1e-3, validator=number(above=True))
    gda: bool = False
    form: Literal["domainbed", "paper"] = field(default="domainbed", validator=one_of("domainbed", "paper"))

    def init(self, weights: Weights) -> State:
        """Return the head as the first adversarial head."""
        return {"adversary": self._from(head_of(weights, "Transfer"))}

    def _from(self, head: Weights) -> Owned:
        return Owned(head, {}, SGD(self.lr).init(tuple(head.values())))

    def __call__(
        self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights, memory: object, state: State
    ) -> Descended:
        """Return the outcome of two gradients and two updates, and the adversarial head after its ascents."""
        first = last = gradients(weights)
        if not self.gda or self.form == "paper":
            weights, memory = optimizer.update(first.gradients, memory, weights)
            last = gradients(weights, after=first, risk=self._against, state=state["adversary"])
            weights, memory = optimizer.update(last.gradients, memory, weights)
        last = gradients(weights, after=last, risk=self._ascended)
        return Descended(weights, memory, {"adversary": last.risk}, evolve(first, buffers=last.buffers))

    def _gap(self, seen: Observation, head: Weights, features: Tensor) -> Tensor:
        logits = functional_call(twin(seen.head), head, (features,))
        risks = seen.domain_means(per_sample_losses(seen.loss, logits, seen.labels))
        return self.weight * (risks[risks.argmax()] - risks[risks.argmin()])

    def _against(self, seen: Observation, state: Owned, step: int) -> tuple[Tensor, Owned]:
        return self._gap(seen, state.parameters, seen.features), state

    def _ascended(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, Owned]:
        head = {name: p.detach() for name, p in seen.head.named_parameters() if p.requires_grad}
        found, features = self._from(head), seen.features.detach()
        for _ in range(self.ascents):
            leaves = found.leaves()
            # The same on all ranks, whose samples are gathered.
            moved = found.trained(-self._gap(seen, leaves, features), leaves, SGD(self.lr))
            found = evolve(moved, parameters=_projected(moved.parameters, head, self.radius))
        return self._gap(seen, found.parameters, features), found


def _projected(weights: Weights, center: Weights, radius: float) -> Weights:
    """Return the nearest weights in a ball."""
    shifts = {name: weight - center[name] for name, weight in weights.items()}
    factor = (radius / get_total_norm(shifts.values())).clamp(max=1.0)
    return {name: center[name] + factor * shift for name, shift in shifts.items()}


METHODS = {
    "Transfer": Method(
        {
            "t_lambda": Range(1.0, power(-2, 1)),
            "delta": Range(2.0, uniform(0.1, 3.0)),
            "d_steps_per_g": Range(10, choice((1, 2, 5))),
            "weight_decay_d": Range(0.0, power(-6, -2)),
            "gda": Range(False, choice((True,))),
            "beta1": Range(0.5, choice((0.0, 0.5))),
            "lr_d": Range(1e-3, power(-4.5, -2.5)),
        },
        changes=lambda h: {
            "descent": Transfer(h["t_lambda"], h["delta"], int(h["d_steps_per_g"]), h["lr_d"], bool(h["gda"]))
        },
    )
}
