"""What one step sees: a lazy view in which each quantity is computed at most once, on first reading."""

from collections.abc import Callable
from functools import cached_property

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from fishr.losses import CrossEntropy, Loss, loss_deltas, per_sample_losses
from fishr.statistics.closed_form import has_bias, linear_moments
from fishr.statistics.moments import Route, at_least_float32, gradient_gram, gradient_moments, resolve_route
from fishr.types import DomainBatch, GradientMoments


@frozen(eq=False, slots=False)
class Observation:
    """The features, logits, losses and gradient statistics of a batch; make one with ``observe``.

    Nothing is computed before it is read, and nothing twice. The head and all statistics run in float32 or wider,
    also under autocast, which thereby reaches the featurizer alone.

    Args:
        featurizer: inputs to features.
        head: features to logits; statistics are of the gradients by its trainable parameters.
        batch: samples ordered by domain.
        loss: per-sample, unscaled.
        route: how gradient moments are computed, see ``gradient_moments``.

    Example:
        >>> batch = DomainBatch(torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1]), sizes=(2, 4))
        >>> seen = Observation(nn.Linear(4, 3), nn.Linear(3, 2), batch)
        >>> seen.domain_losses.shape, seen.moments.variance.shape
        (torch.Size([2]), torch.Size([2, 8]))
    """

    featurizer: Callable[[Tensor], Tensor]
    head: nn.Module
    batch: DomainBatch
    loss: Loss = CrossEntropy()  # noqa: RUF009 (immutable)
    route: Route = "auto"

    @property
    def labels(self) -> Tensor:
        """[N] or [N, C], what the loss reads."""
        return self.batch.labels

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples of each domain."""
        return self.batch.sizes

    @property
    def domains(self) -> int:
        """K, the number of domains."""
        return self.batch.domains

    @property
    def closed_form(self) -> bool:
        """Whether the head's gradients are outer products of ``deltas`` and ``features``."""
        return resolve_route(self.head, self.route, self.features) == "closed_form"

    @cached_property
    def features(self) -> Tensor:
        """[N, F], what the head reads, in the type of its parameters but float32 or wider."""
        features = self.featurizer(self.batch.inputs)
        if not features.is_floating_point():
            return features
        return features.to(torch.promote_types(self._head_type(features), torch.float32))

    @cached_property
    def logits(self) -> Tensor:
        """[N, C], float32 or wider."""
        with torch.autocast(self.features.device.type, enabled=False):
            whole = not self.features.is_floating_point()
            features = self.features if whole else self.features.to(self._head_type(self.features))
            return at_least_float32(self.head(features))

    def _head_type(self, features: Tensor) -> torch.dtype:
        return next((p.dtype for p in self.head.parameters() if p.is_floating_point()), features.dtype)

    @cached_property
    def losses(self) -> Tensor:
        """[N], the loss of each sample."""
        return per_sample_losses(self.loss, self.logits, self.labels)

    @cached_property
    def domain_losses(self) -> Tensor:
        """[K], the mean loss of each domain."""
        return torch.stack([losses.mean() for losses in self.losses.split(list(self.sizes))])

    @cached_property
    def deltas(self) -> Tensor:
        """[N, C], δ = ∂ℓ/∂logits of each sample, loss/logit."""
        return loss_deltas(self.loss, self.logits, self.labels)

    @cached_property
    def moments(self) -> GradientMoments:
        """Moments of the head's per-sample gradients, [K, P]."""
        if self.closed_form:
            with torch.autocast(self.features.device.type, enabled=False):
                return linear_moments(self.deltas, self.features, self.sizes, bias=has_bias(self.head))
        return gradient_moments(self.head, self.features, self.labels, self.sizes, self.loss, self.route)

    @cached_property
    def gram(self) -> Tensor:
        """[N, N], inner products of the head's per-sample gradients, (loss/parameter)²."""
        return gradient_gram(self.head, self.features, self.labels, self.loss)

    def detached(self) -> "Observation":
        """The same observation without a graph to the featurizer: what was computed is kept, the rest comes on reading.

        Read it under ``torch.no_grad()`` to spare the head's graph as well, but ask for it outside, where features
        and logits keep the graph that the observation itself needs.
        """
        return self._detached

    @cached_property
    def _detached(self) -> "Observation":
        view = evolve(self)
        known = {"features": self.features, "logits": self.logits, **vars(self)}
        for name in ("features", "logits", "losses", "domain_losses", "deltas", "moments", "gram"):
            if name in known:
                # Where cached_property looks first; the record's own fields stay frozen.
                vars(view)[name] = known[name].detach()
        return view


def observe(
    featurizer: Callable[[Tensor], Tensor],
    head: nn.Module,
    batch: DomainBatch,
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
    route: Route = "auto",
) -> Observation:
    """A lazy view of what a model does on a batch of domains.

    Args:
        featurizer: inputs to features; ``torch.nn.Identity()`` for features that are cached.
        head: features to logits, the classifier whose gradients are matched.
        batch: samples ordered by domain.
        loss: per-sample, unscaled.
        route: how gradient moments are computed, see ``gradient_moments``.

    Returns:
        An observation; reading one of its quantities computes it, once.

    Example:
        >>> batch = DomainBatch(torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1]), sizes=(2, 4))
        >>> observe(nn.Identity(), nn.Linear(4, 2), batch).losses.shape
        torch.Size([6])
    """
    return Observation(featurizer, head, batch, loss, route)
