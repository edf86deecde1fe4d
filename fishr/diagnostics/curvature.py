"""The Hessians of the domains' risks, on top of a view of a head on their samples."""

from collections.abc import Callable, Hashable
from functools import cached_property, partial
from typing import Any, Literal, TypeVar

import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from fishr.diagnostics import hessian
from fishr.diagnostics.hessian import DenseHessian, Eigenpairs, Hessian, dense_hessian, logits_at
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.linear_layers import LayeredGaussNewton, is_piecewise_linear, layered_gauss_newtons
from fishr.diagnostics.logit_curvature import LogitCurvature, logit_curvature
from fishr.diagnostics.operator_hessian import OperatorHessian, inner_products
from fishr.diagnostics.uncertainty import Estimate, Estimation, together
from fishr.errors import InputError
from fishr.grad_mode import ordinary
from fishr.losses import CrossEntropy, Loss, check_labels, per_sample_losses
from fishr.observation import Observation
from fishr.row_checks import check_batch, whole_numbers
from fishr.statistics.linear_heads import has_bias, is_plain_linear
from fishr.statistics.moments import Route
from fishr.statistics.pure_forward import refuse_batch_statistics, refuse_module, twin
from fishr.types import HEAD, DomainBatch, Layout

T = TypeVar("T")
# Elements of the Gauss-Newton matrices of all domains up to which they are held whole: 1 GiB in float64.
WHOLE_ELEMENTS = 1 << 27
# Share of the gradients' size by which a mean gradient of the layers' factors may be off.
_APART = 1e-3
# Eigenvalues of a domain's Hessian whose part in norms and densities is not left to chance.
OUTSTANDING = 5


@frozen(eq=False, slots=False)
class Curvature:
    """Curvature of the domains' risks by the head's parameters, on the samples of a view.

    Nothing is computed before it is read, and nothing twice. The head, its buffers and the features stay as they are.
    The head of a whole network is the network itself, on the raw inputs.

    Args:
        seen: the view; its version without a graph is kept.
        estimation: effort and seed of what is estimated.
        passed: called after each pass through a large head, for progress.

    Raises:
        InputError: the view is of other layers than the head's, the loss does not take the labels, or a layer in train
            mode mixes the samples or draws at random.

    Example:
        >>> head, features, labels = nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
        >>> curvature = Curvature.of(head, features, labels, sizes=(2, 3))
        >>> curvature.seen.moments.variance.shape, len(curvature.hessians)
        (torch.Size([2, 8]), 2)
    """

    seen: Observation = field(converter=Observation.detached)
    estimation: Estimation = Estimation()  # noqa: RUF009 (immutable)
    passed: Callable[[], object] = lambda: None
    _known: dict[Hashable, Any] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        if self.seen.layers != HEAD:
            raise InputError(f"layers: got {self.seen.layers}, expected the head's alone; give the network as the head")
        refuse_module(self.seen.head)
        refuse_batch_statistics(self.seen.head)
        _refuse_noise(self.seen.head)
        # Some quantities never read the loss itself, and would be of labels that it does not take.
        check_labels(self.seen.loss, self.seen.labels, self.seen.logits.shape[-1])

    @classmethod
    def of(
        cls,
        head: nn.Module,
        features: Tensor,
        labels: Tensor,
        sizes: tuple[int, ...],
        loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
        estimation: Estimation = Estimation(),  # noqa: B008 (immutable)
        route: Route = "auto",
        passed: Callable[[], object] = lambda: None,
    ) -> "Curvature":
        """Return the curvature of a head on features.

        Args:
            features: [N, ...] what the head reads, ordered by domain.
            sizes: samples of each domain, summing to N.
            route: of the moments of gradients, see ``gradient_moments``.
            passed: called after each pass through a large head.

        Raises:
            InputError: as the class, and: the sizes do not fit, the head is not usable, or no parameter requires grad.
        """
        refuse_module(head)
        Layout.of(head)
        sizes = whole_numbers(sizes)
        check_batch(features, labels, sizes)
        batch = DomainBatch(ordinary(features), ordinary(labels), sizes)
        # A twin, as the view's forward pass moves buffers.
        return cls(Observation(nn.Identity(), twin(head), batch, loss, route, graph=False), estimation, passed)

    @cached_property
    def head(self) -> nn.Module:
        """The head with the buffers that it had before any forward pass of the view."""
        return twin(self.seen.module_before)

    @cached_property
    def layout(self) -> Layout:
        return self.seen.layout

    @cached_property
    def linear(self) -> bool:
        """True if the head is one plain linear layer on [N, F], for which everything has a closed form."""
        return is_plain_linear(self.seen.head) and self.seen.features.ndim == 2

    @cached_property
    def of_logits(self) -> LogitCurvature:
        """A_n of all samples."""
        return logit_curvature(self.seen.loss, self.seen.logits, self.seen.labels)

    def first(self, domains: int) -> "Curvature":
        """Return the curvature of the first domains, which shares what is known of single domains and of pairs."""
        seen, sizes = self.seen, self.seen.sizes[:domains]
        rows = slice(sum(sizes))
        samples = seen.features[rows], seen.labels[rows], sizes
        found = Curvature.of(self.head, *samples, seen.loss, self.estimation, seen.route, self.passed)
        vars(found)["_known"] = self._known
        return found

    @property
    def hessians(self) -> tuple[Hessian, ...]:
        """The Hessian of each domain's risk: closed form, whole up to 2048 parameters, else by products."""
        return tuple(self.once(("hessian", e), partial(self._hessian, e)) for e in range(self.seen.domains))

    def _hessian(self, domain: int) -> Hessian:
        features, labels = self.seen.domain_samples[domain]
        if self.linear:
            bias, curvature = has_bias(self.head), self.of_logits.split(self.seen.sizes)[domain]
            inputs = torch.cat([features, features.new_ones(len(features), int(bias))], 1)
            return LinearHessian(curvature, inputs, bias)
        if self.layout.size <= hessian.WHOLE_LIMIT:
            return DenseHessian(dense_hessian(self.head, features, labels, self.seen.loss))
        return OperatorHessian(self.head, features, labels, self.seen.loss, self.estimation, passed=self.passed)

    @cached_property
    def layered(self) -> tuple[LayeredGaussNewton, ...] | None:
        """The Gauss-Newton matrix of each domain, for heads whose parameters are of linear layers; None for others."""
        seen, deltas = self.seen, self.seen.deltas
        found = layered_gauss_newtons(self.head, seen.features, self.of_logits, seen.sizes)
        if found is not None:
            means = [own.mean_gradient(part) for own, part in zip(found, seen.per_domain(deltas), strict=True)]
            apart = torch.linalg.vector_norm(torch.stack(means) - seen.moments.mean, dim=1)
            # A head may use its weights in other places too, out of sight.
            if (apart > _APART * seen.moments.second_moment.sum(1).sqrt()).any():
                return None
        return found

    def gauss_newton(self, domain: int) -> Hessian:
        """Return the Gauss-Newton matrix of a domain, for a head that is not linear; whole where it fits."""
        hessian = self.hessians[domain]
        fits = self.layout.size**2 * self.seen.domains <= WHOLE_ELEMENTS
        if fits and self.layered is not None and self.of_logits.convex:
            return self.once(("gauss_newton", domain), partial(DenseHessian, self.layered[domain].whole))
        assert isinstance(hessian, OperatorHessian)
        return evolve(hessian, kind="ggn")

    @cached_property
    def hessian_diagonals(self) -> Estimate:
        """[K, P], diag H_e, exact but for large heads that BackPACK does not know."""
        if not self.linear and is_piecewise_linear(self.head) and self.layered is not None:
            return Estimate(torch.stack([own.diagonal() for own in self.layered]), "closed form of linear layers")
        if self.has_backpack:
            return self.backpack_diagonals("hessian")
        return together([hessian.diagonal() for hessian in self.hessians])

    @cached_property
    def has_backpack(self) -> bool:
        """True if BackPACK has the diagonals of this head, which is not linear."""
        if self.linear:
            return False
        # Loaded only for heads that need it: importing BackPACK takes longer than many a closed form.
        from fishr.diagnostics.backpack_curvature import has_backpack_curvature

        return has_backpack_curvature(self.head, self.seen.features, self.seen.labels, self.seen.loss)

    def backpack_diagonals(self, kind: Literal["hessian", "ggn"]) -> Estimate:
        """Return the diagonals [K, P] of the Hessians or of their Gauss-Newton parts, if ``has_backpack``."""
        from fishr.diagnostics.backpack_curvature import backpack_diagonal

        found = [backpack_diagonal(self.head, z, y, self.seen.loss, kind) for z, y in self.seen.domain_samples]
        return Estimate(torch.stack(found), "BackPACK DiagHessian" if kind == "hessian" else "BackPACK DiagGGNExact")

    @cached_property
    def hessian_traces(self) -> Estimate:
        """[K], tr H_e: the sum of an exact diagonal, else an estimate of its own."""
        diagonals = self.hessian_diagonals
        if diagonals.error is not None:
            return together([hessian.trace() for hessian in self.hessians])
        return Estimate(diagonals.value.sum(1), f"sum of the diagonal, {diagonals.route}")

    @cached_property
    def hessian_products(self) -> Estimate:
        """[K, K], ⟨H_A, H_B⟩."""
        order, hessians = range(self.seen.domains), self.hessians
        if operators := self._operators:
            # Twice the products: of random vectors, and of about as many eigenvectors.
            rank = max(1, min(OUTSTANDING, self.estimation.products // len(operators)))
            return inner_products(operators, self.tops(rank))
        # Each pair once: the matrix is symmetric, also where its entries are estimates.
        found = {(a, b): hessians[a].product(hessians[b]) for a in order for b in order if a < b}
        found |= {(a, a): norm for a, norm in enumerate(self._squared_norms)}
        return together([together([found[min(a, b), max(a, b)] for b in order]) for a in order])

    @cached_property
    def squared_norms(self) -> Estimate:
        """[K], ‖H_e‖_F²."""
        if not self._operators:
            return together(self._squared_norms)
        # One pass over the domains gives the pairs as well.
        products = self.hessian_products
        assert products.error is not None
        assert products.draws is not None
        draws = products.draws.diagonal(dim1=1, dim2=2)
        return Estimate(products.value.diagonal(), products.route, products.error.diagonal(), draws)

    @cached_property
    def _squared_norms(self) -> list[Estimate]:
        return [hessian.product(hessian) for hessian in self.hessians]

    @property
    def _operators(self) -> list[OperatorHessian]:
        """The Hessians, if they are known by products alone."""
        return [hessian for hessian in self.hessians if isinstance(hessian, OperatorHessian)]

    def tops(self, rank: int) -> tuple[Eigenpairs, ...]:
        """Return the ``rank`` largest eigenpairs of each domain's Hessian."""
        found = list[Eigenpairs]()
        for domain, each in enumerate(self.hessians):
            known, pairs = self._known.get(("top", domain), (0, None))
            if pairs is None or known < rank:
                # One more than asked for: the gap to the next eigenvalue says how well the eigenspace is known.
                known, pairs = self._known["top", domain] = rank + 1, each.top(rank + 1)
            found.append(pairs.first(rank))
        return tuple(found)

    def once(self, key: tuple[object, ...], compute: Callable[[], T]) -> T:
        """Return what was computed under the key, or compute it now: for what depends on options too."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def risks_at(self, step: Tensor) -> Tensor:
        """Return R_e(θ + δ) [K] for a step δ [P], differentiable by it; the head stays where it is."""
        logits = logits_at(self.head, self.seen.features, step)
        return self.seen.domain_means(per_sample_losses(self.seen.loss, logits, self.seen.labels))

    def risk_at(self, domain: int, step: Tensor) -> Tensor:
        """Return R_e(θ + δ) of one domain for a step δ [P], differentiable by it."""
        features, labels = self.seen.domain_samples[domain]
        return per_sample_losses(self.seen.loss, logits_at(self.head, features, step), labels).mean()


def _refuse_noise(head: nn.Module) -> None:
    for name, module in head.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p:  # pyright: ignore[reportPrivateUsage]
            raise InputError(
                f"head layer {name or 'itself'!r}: {type(module).__qualname__} draws at random in train mode, "
                "expected a head that gives the same answer twice; call .eval() on it"
            )
