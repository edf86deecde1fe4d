"""TRM: transfer risks, those of one domain's best head on the others."""

from typing import Any, ClassVar, Literal

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn.functional import linear

from fishr.checks import number, one_of, whole
from fishr.losses import per_sample_losses
from fishr.methods.method import Method
from fishr.methods.ranges import Range, power
from fishr.methods.ranges import whole as whole_number
from fishr.observation import Observation
from fishr.penalties.combinators import Total
from fishr.penalties.penalty import require_present
from fishr.training.objective import Objective
from fishr.training.owned import Owned
from fishr.training.sgd import SGD
from fishr.types import Problem

_UPDATES, _OPTIMIZER = 30, SGD(lr=0.1)
_TERMS, _DIVERGED = 10, 10.0


@frozen
class TRM:
    """(1/K) Σ_Q [Σ_{P ≠ Q} α_QP R_P(h_Q) − c · ⟨u_Q, ∇R_Q(h_Q)⟩], from a step on.

    h_Q is a linear head of domain Q, which the state keeps: each step moves it by 30 updates of SGD at the rate 0.1 on
    R_Q, of constant features. u_Q = Σ_{i=0}^{10} (I − H_Q)^i ∇ Σ_P α_QP R_P(h_Q), at most until an entry of the sum
    exceeds 10, approximates the inverse of the Hessian H_Q of R_Q; gradients ∇ and Hessians are by the weights of h_Q
    without its bias. The gradient of the value by the features takes h, u and α as constants. The rows of α, over P,
    are first uniform; each step divides them by their sums, and multiplies α_QP by exp(η α_QP R_P(h_Q)) afterwards.
    K, P and Q are of the domains present in the batch.

    Args:
        cos_lambda: c, of the alignment of gradients.
        start: First step of the penalty; before it, it is 0, and the heads rest.
        eta: η, the rate of the weights.
        form: ``"domainbed"`` has 2 (I − H_Q) in the place of I + (I − H_Q) in u_Q, and the gradient of the value is
            that with the next α, both because tensors change in place there; ``"paper"`` is as above.

    Raises:
        InputError: A number outside its range, or a single training domain. When called: samples of a single domain.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> head = nn.Linear(3, 2)
        >>> penalty, problem = TRM(start=1), Problem.of(head, domains=2)
        >>> batch = DomainBatch(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]), sizes=(2, 2))
        >>> seen, state = observe(nn.Identity(), head, batch), penalty.init(problem)
        >>> penalty(seen, state, step=0)[0], penalty(seen, state, step=1)[0] > 0
        (tensor(0.), tensor(True))

    Source:
        Xu and Jaakkola, Learning representations that support robust transfer of predictors, 2021 (arXiv 2110.09940).
    """

    cos_lambda: float = field(default=1e-4, validator=number())
    start: int = field(default=0, validator=whole(0))
    eta: float = field(default=1e-2, validator=number())
    form: Literal["domainbed", "paper"] = field(default="domainbed", validator=one_of("domainbed", "paper"))
    least_domains: ClassVar[int] = 2

    def init(self, problem: Problem) -> dict[str, Any]:
        """Return a linear head of each domain, and α [K, K] with a zero diagonal."""
        problem.require_domains("TRM", self.least_domains)
        features, outputs = problem.widths("TRM")
        heads = Owned.of(
            lambda: nn.ModuleList(nn.Linear(features, outputs) for _ in range(problem.domains)),
            _OPTIMIZER,
            problem,
            "heads",
        )
        ones = torch.ones(problem.domains, problem.domains, dtype=problem.dtype, device=problem.device)
        return {"heads": heads, "weights": ones.fill_diagonal_(0.0)}

    def __call__(self, seen: Observation, state: dict[str, Any], step: int) -> tuple[Tensor, dict[str, Any]]:
        """Return the penalty, 0-dim, in the loss's unit, and the state after it."""
        if step < self.start or not torch.is_grad_enabled():
            return seen.features.new_zeros(()), state
        require_present(seen, "TRM", self.least_domains)
        samples = [(rows.flatten(1), labels) for rows, labels in seen.domain_samples]

        def risk(domain: int, weight: Tensor, bias: Tensor, graph: bool = True) -> Tensor:
            features, labels = samples[domain]
            logits = linear(features if graph else features.detach(), weight, bias)
            return per_sample_losses(seen.loss, logits, labels).mean()

        heads: Owned = state["heads"]
        for _ in range(_UPDATES):
            own = heads.leaves()
            every = [risk(i, *_head(own, k), graph=False) for i, k in enumerate(seen.present)]
            # The same on all ranks, whose samples are gathered.
            heads = heads.trained(torch.stack(every).sum(), own, _OPTIMIZER)

        rows = torch.tensor(seen.present, device=seen.features.device)
        before = state["weights"][rows][:, rows]
        shares = before / before.sum(1, keepdim=True)
        after, leaves, found = shares.clone(), heads.leaves(), list[Tensor]()
        for q, k in enumerate(seen.present):
            weight, bias = _head(leaves, k)
            others = [p for p in range(seen.domains) if p != q]
            risks = torch.stack([risk(p, weight, bias) for p in others])
            transfer = shares[q, others] @ risks
            (own,) = torch.autograd.grad(risk(q, weight, bias), weight, create_graph=True)
            (by_others,) = torch.autograd.grad(transfer, weight, retain_graph=True)
            (slope,) = torch.autograd.grad(risk(q, weight, bias, graph=False), weight, create_graph=True)
            solved = self._solved(by_others, slope, weight)
            after[q, others] *= (self.eta * shares[q, others] * risks.detach()).exp()
            if self.form == "domainbed":
                moved = after[q, others]
                transfer = moved @ risks + (shares[q, others] - moved) @ risks.detach()
            found.append(transfer - self.cos_lambda * (solved * own).sum())
        # Rows of the domains present keep their sums, beside those that are missing.
        after = after * before.sum(1, keepdim=True)
        weights = state["weights"].index_put((rows.unsqueeze(1), rows), after)
        return torch.stack(found).mean(), {"heads": heads, "weights": weights}

    def _solved(self, vector: Tensor, slope: Tensor, weight: Tensor) -> Tensor:
        """Return the truncated Neumann series of H⁻¹ v, of the Hessian that a gradient with a graph has."""
        total = vector
        for term in range(_TERMS):
            (product,) = torch.autograd.grad(slope, weight, vector, retain_graph=True)
            vector = vector - product
            total = 2 * vector if term == 0 and self.form == "domainbed" else total + vector
            if total.abs().max() > _DIVERGED:
                break
        return total


def _head(leaves: dict[str, Tensor], domain: int) -> tuple[Tensor, Tensor]:
    return leaves[f"{domain}.weight"], leaves[f"{domain}.bias"]


METHODS = {
    "TRM": Method(
        {
            "cos_lambda": Range(1e-4, power(-5, 0)),
            "iters": Range(200, whole_number(power(0, 4))),
            "groupdro_eta": Range(1e-2, power(-3, -1)),
        },
        lambda h: Objective(penalty=Total(trm=TRM(h["cos_lambda"], h["iters"], h["groupdro_eta"]))),
    )
}
