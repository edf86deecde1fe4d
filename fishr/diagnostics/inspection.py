"""A head looked at on the samples of several domains: what the diagnostics share, each computed at most once."""

from collections.abc import Callable, Hashable
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, cast

import torch
from attrs import field, frozen
from torch import Tensor, nn

from fishr.diagnostics import dense_hessian
from fishr.diagnostics.dense_hessian import DenseHessian
from fishr.diagnostics.hessian import Eigenpairs, Estimate, Hessian, together
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.logit_curvature import LogitCurvature, logit_curvature
from fishr.diagnostics.operator_hessian import OperatorHessian
from fishr.diagnostics.operators import Estimation
from fishr.diagnostics.quantity import Quantity
from fishr.errors import InputError
from fishr.grad_mode import ordinary, outside_inference_mode
from fishr.losses import CrossEntropy, Loss, check_labels
from fishr.observation import Observation, observe
from fishr.ranks import ALONE
from fishr.statistics.functional_moments import refuse_batch_statistics
from fishr.statistics.linear_head import has_bias
from fishr.statistics.moments import Route, resolve_route
from fishr.statistics.pure_forward import refuse_module, twin
from fishr.types import DomainBatch, GradientMoments, Layout, check_batch, whole_numbers

P = ParamSpec("P")


def _twin_of_usable(head: nn.Module) -> nn.Module:
    refuse_module(head)
    Layout.of(head)
    return twin(head)


def _ordinary(rows: Any) -> Any:
    return ordinary(rows) if isinstance(rows, Tensor) else rows


@frozen(eq=False, slots=False)
class Inspection:
    """A head, features and labels of several domains, and what follows from them, without graph.

    Nothing is computed before it is read, and nothing twice. A whole network is a head that reads the raw inputs.
    Everything is computed on a twin of the head, which shares its parameters; head and features stay as they are.

    Args:
        head: the module whose trainable parameters everything is taken by.
        features: [N, ...] what the head reads, ordered by domain.
        labels: what the loss reads.
        sizes: samples of each domain, summing to N.
        loss: per-sample, unscaled.
        estimation: how much is spent on what is estimated, and from which seed.
        route: how moments of gradients are computed, see ``gradient_moments``.

    Raises:
        InputError: the sizes do not fit, the head is not usable, the loss does not take the labels, no parameter of the
            head requires grad, or a layer in train mode mixes the samples or draws at random.

    Example:
        >>> head, features, labels = nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
        >>> seen = Inspection(head, features, labels, sizes=(2, 3))
        >>> seen.moments.variance.shape, len(seen.hessians)
        (torch.Size([2, 8]), 2)
    """

    head: nn.Module = field(converter=_twin_of_usable)
    features: Tensor = field(converter=_ordinary)
    labels: Tensor = field(converter=_ordinary)
    sizes: tuple[int, ...] = field(converter=whole_numbers)
    loss: Loss = CrossEntropy()  # noqa: RUF009 (immutable)
    estimation: Estimation = Estimation()  # noqa: RUF009 (immutable)
    route: Route = "auto"
    _tops: dict[int, tuple[Eigenpairs, ...]] = field(factory=dict, init=False)
    _kept: dict[Hashable, Estimate] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        check_batch(self.features, self.labels, self.sizes)
        refuse_batch_statistics(self.head)
        _refuse_noise(self.head)
        # Some quantities never read the loss itself, and would be of labels that it does not take.
        check_labels(self.loss, self.labels, self.logits.shape[-1])

    @cached_property
    def _seen(self) -> Observation:
        # On a twin of its own, whose buffers the observation's forward pass may update.
        batch = DomainBatch(self.features, self.labels, self.sizes)
        return observe(nn.Identity(), twin(self.head), batch, self.loss, self.route, ALONE)

    @property
    def domains(self) -> int:
        """K."""
        return len(self.sizes)

    @cached_property
    def layout(self) -> Layout:
        """Which column is which parameter."""
        return Layout.of(self.head)

    @property
    def linear(self) -> bool:
        """Whether the head is one plain linear layer on [N, F], for which everything has a closed form."""
        return resolve_route(self.head, "auto", self.features) == "closed_form"

    @cached_property
    def logits(self) -> Tensor:
        """[N, C]."""
        with torch.no_grad():
            return self._seen.logits

    @cached_property
    def losses(self) -> Tensor:
        """[N]."""
        with torch.no_grad():
            return self._seen.losses

    @cached_property
    def risks(self) -> Tensor:
        """[K], the mean loss of each domain."""
        return torch.stack([losses.mean() for losses in self.losses.split(list(self.sizes))])

    @cached_property
    def deltas(self) -> Tensor:
        """[N, C], ∂ℓ/∂logits."""
        with torch.no_grad():
            return self._seen.deltas.detach()

    @cached_property
    def moments(self) -> GradientMoments:
        """Mean and variance of the per-sample gradients, [K, P]."""
        with torch.no_grad():
            return self._seen.moments.detach()

    @cached_property
    def gram(self) -> Tensor:
        """[N, N], inner products of the per-sample gradients."""
        with torch.no_grad():
            return self._seen.gram.detach()

    @cached_property
    def curvature(self) -> LogitCurvature:
        """A_n of all samples."""
        return logit_curvature(self.loss, self.logits, self.labels)

    @cached_property
    def domain_features(self) -> tuple[Tensor, ...]:
        """What the head reads of each domain, [n, ...], in the type of its parameters but float32 or wider."""
        with torch.no_grad():
            return self._seen.features.detach().split(list(self.sizes))

    @cached_property
    def domain_labels(self) -> tuple[Tensor, ...]:
        """What the loss reads of each domain."""
        return self.labels.split(list(self.sizes))

    @cached_property
    def hessians(self) -> tuple[Hessian, ...]:
        """The Hessian of each domain's risk: closed form, whole up to 2048 parameters, else by products."""
        if self.linear:
            bias, curvatures = has_bias(self.head), self.curvature.split(self.sizes)
            return tuple(LinearHessian(a, z, bias) for a, z in zip(curvatures, self.domain_features, strict=True))
        pairs = list(zip(self.domain_features, self.domain_labels, strict=True))
        if self.layout.size <= dense_hessian.WHOLE_LIMIT:
            return tuple(DenseHessian(dense_hessian.dense_hessian(self.head, z, y, self.loss)) for z, y in pairs)
        return tuple(
            OperatorHessian(self.head, z, y, self.loss, self.estimation, exact_diagonal=self._exact_diagonal_of(domain))
            for domain, (z, y) in enumerate(pairs)
        )

    @cached_property
    def hessian_diagonals(self) -> Estimate:
        """[K, P], diag H_e, exact but for large heads that BackPACK does not know."""
        if self._has_backpack_curvature:
            from fishr.diagnostics.backpack_curvature import backpack_diagonal

            pairs = zip(self.domain_features, self.domain_labels, strict=True)
            found = [backpack_diagonal(self.head, z, y, self.loss, "hessian") for z, y in pairs]
            return Estimate(torch.stack(found), "BackPACK DiagHessian")
        return together([hessian.diagonal() for hessian in self.hessians])

    @cached_property
    def _has_backpack_curvature(self) -> bool:
        if self.linear:
            return False
        # Loaded only for heads that need it: importing BackPACK takes longer than many a closed form.
        from fishr.diagnostics.backpack_curvature import has_backpack_curvature

        return has_backpack_curvature(self.head, self.features, self.loss)

    def _exact_diagonal_of(self, domain: int) -> Callable[[], Tensor] | None:
        return (lambda: self.hessian_diagonals.value[domain]) if self._has_backpack_curvature else None

    @cached_property
    def hessian_products(self) -> Estimate:
        """[K, K], ⟨H_A, H_B⟩."""
        order, hessians = range(self.domains), self.hessians
        # Each pair once: the matrix is symmetric, also where its entries are estimates.
        found = {(a, b): hessians[a].product(hessians[b]) for a in order for b in order if a < b}
        found |= {(a, a): norm for a, norm in enumerate(self._norms)}
        return together([together([found[min(a, b), max(a, b)] for b in order]) for a in order])

    @cached_property
    def squared_norms(self) -> Estimate:
        """[K], ‖H_e‖_F²."""
        return together(self._norms)

    @cached_property
    def _norms(self) -> list[Estimate]:
        return [hessian.squared_norm() for hessian in self.hessians]

    def once(self, key: Hashable, compute: Callable[[], Estimate]) -> Estimate:
        """What was computed under the key before, else computed now: for what depends on more than the inspection."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]

    def tops(self, rank: int) -> tuple[Eigenpairs, ...]:
        """The ``rank`` largest eigenpairs of each domain's Hessian."""
        known = max(self._tops, default=0)
        if known < rank:
            # One more than asked for: the gap to the next eigenvalue says how well the eigenspace is known.
            known = rank + 1
            self._tops[known] = tuple(hessian.top(known) for hessian in self.hessians)
        return tuple(pairs.first(rank) for pairs in self._tops[known])


def _refuse_noise(head: nn.Module) -> None:
    for name, module in head.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p:  # pyright: ignore[reportPrivateUsage]
            raise InputError(
                f"head layer {name or 'itself'!r}: {type(module).__qualname__} draws at random in train mode, "
                "expected a head that gives the same answer twice; call .eval() on it"
            )


class HeadQuantity(Protocol[P]):
    """A diagnostic of a head: called with the head and its data, or by ``of`` with an inspection that is shared."""

    def __call__(
        self,
        head: nn.Module,
        features: Tensor,
        labels: Tensor,
        sizes: tuple[int, ...],
        loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
        estimation: Estimation = Estimation(),  # noqa: B008 (immutable)
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Quantity:
        """Measure it."""
        ...

    def of(self, seen: Inspection, /, *args: P.args, **kwargs: P.kwargs) -> Quantity:
        """Measure it on what an inspection holds."""
        ...


def of_head(function: Callable[Concatenate[Inspection, P], Quantity]) -> HeadQuantity[P]:
    """Let a function of an inspection be called with (head, features, labels, sizes, loss), options by keyword.

    Example:
        >>> @of_head
        ... def samples(seen: Inspection) -> Quantity:
        ...     return Quantity("samples", torch.tensor(seen.sizes), ("domain",), "1", "counted")
        >>> samples(nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3)).value
        tensor([2, 3])
    """

    @wraps(function)
    @outside_inference_mode()
    def measured(
        head: nn.Module,
        features: Tensor,
        labels: Tensor,
        sizes: tuple[int, ...],
        loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
        estimation: Estimation = Estimation(),  # noqa: B008 (immutable)
        **options: object,
    ) -> Quantity:
        seen = Inspection(head, features, labels, sizes, loss, estimation)
        return cast(Callable[..., Quantity], function)(seen, **options)

    vars(measured)["of"] = function
    return cast(HeadQuantity[P], measured)
