"""The lazy view of a head on the samples of several domains, which penalties and diagnostics read."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from fishr.checks import check_type
from fishr.compilation import lazy, traceable
from fishr.errors import InputError
from fishr.losses import CrossEntropy, Loss, loss_deltas, per_sample_losses
from fishr.mixed_samples import features_of, mixes_samples, refuse_mixed_samples
from fishr.observed_samples import ObservedSamples
from fishr.ranks import ALONE, Ranks, given_or_alone, sum_over_ranks
from fishr.seeding import named_generator
from fishr.statistics.domain_moments import GradientMoments
from fishr.statistics.linear_heads import (
    Factors,
    has_bias,
    is_plain_linear,
    linear_moments,
    stack_factors,
    stack_inputs,
    stacked_moments,
)
from fishr.statistics.merge import moments_over_ranks, with_missing
from fishr.statistics.moments import (
    Route,
    at_least_float32,
    gradient_gram,
    gradient_moments,
    moments_of_recording,
    recording_of,
    resolve_route,
)
from fishr.statistics.pure_forward import check_features, checked_rows, twin
from fishr.statistics.twice_differentiable import double_backward_kernels
from fishr.tensor_trees import copies, each_tensor
from fishr.types import HEAD, DomainBatch, Layout, chained

if TYPE_CHECKING:
    from fishr.statistics.recorded_calls import Recording

T = TypeVar("T", Tensor, GradientMoments)


def _quantity(compute: Callable[["Observation"], T]) -> lazy[T]:
    """Return a lazy field that is computed without a graph where the view has none."""

    def read(seen: "Observation") -> T:
        if seen.graph:
            return compute(seen)
        with torch.no_grad():
            return compute(seen).detach()

    read.__doc__ = compute.__doc__
    return lazy(read)


@traceable
@frozen(eq=False, slots=False)
class Observation(ObservedSamples):
    """The features, logits, losses and gradient statistics of a batch; make one with ``observe``.

    Nothing is computed before it is read, and nothing twice. The head and all statistics run in float32 or wider,
    also under autocast, which affects the featurizer alone. Features and logits update the modules' buffers once, as a
    plain forward pass does; statistics start from the buffers as they were before and change nothing, so that no
    quantity depends on the order of reading, even if layers write in place.

    Where several ranks share a batch, every quantity is that of all their samples together, in the order of one
    process: risks and moments are summed over the ranks, samples are gathered only where they are read.

    Quantities of domains have a row for each domain present in the batch, in the order of ``present``. Samples without
    a label, which a loss may ignore, pass the featurizer, whose batch normalization sees them, and are in nothing else:
    neither in ``features`` and all that follows, nor in ``sizes``; a domain without other samples is missing.

    Fields that are not named here are arguments of ``observe``.

    Args:
        given: this rank's features, where they are computed already.
        graph: whether quantities have a graph to the modules' parameters.
        seed: of ``generator``; the same on all ranks, another one at each step.
        lr_factor: of the learning rates of networks that penalties train themselves.
        weights: [N], of the samples in means of losses and in moments, with mean 1 in each domain; None: 1. Samples of
            weight 0 fill a batch.

    Raises:
        InputError: the head is no module, or the batch no ``DomainBatch``. When read: no sample of a rank has a label.
    """

    featurizer: Callable[[Any], Tensor]
    head: nn.Module
    batch: DomainBatch
    loss: Loss = CrossEntropy()  # noqa: RUF009 (immutable)
    route: Route = "auto"
    ranks: Ranks = ALONE
    given: Tensor | None = None
    layers: tuple[str, ...] = HEAD
    graph: bool = True
    seed: int | None = None
    lr_factor: float = 1.0
    weights: Tensor | None = None

    def __attrs_post_init__(self) -> None:
        check_type("head", self.head, nn.Module, "call observe(featurizer, head, batch)")
        check_type("batch", self.batch, DomainBatch, "make one by DomainBatch.of(inputs, labels, domains)")

    @lazy
    def own(self) -> "Observation":
        """The view of this rank's own samples alone; without other ranks the observation itself."""
        return self if self.ranks.alone else evolve(self, ranks=ALONE)

    @property
    def domain_samples(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Features and labels of each domain."""
        return tuple(zip(self.per_domain(self.features), self.per_domain(self.labels), strict=True))

    @property
    def linear(self) -> bool:
        """True if the gradients are outer products of ``deltas`` and ``features``: those of a linear head."""
        return self.closed_form and is_plain_linear(self.head)

    @lazy
    def closed_form(self) -> bool:
        """True if the gradients are outer products of ``factors``: those of linear layers in a row."""
        if self.layers != HEAD or (torch.compiler.is_compiling() and not is_plain_linear(self.head)):
            return False
        return resolve_route(self.head, self.route, self.own.features) == "closed_form"

    @property
    def module(self) -> nn.Module:
        """The module whose gradients are taken: the head, or with other ``layers`` featurizer and head as one.

        Raises:
            InputError: a featurizer that is no module, so that it has no layers.
        """
        if self.layers == HEAD:
            return self.head
        if not isinstance(self.featurizer, nn.Module):
            raise InputError(f"layers: got {self.layers} of a featurizer that is no torch.nn.Module, expected one")
        refuse_mixed_samples(self.featurizer, f"layers: {', '.join(self.layers)}", "use the head's")
        return chained(self.featurizer, self.head)

    @property
    def layout(self) -> Layout:
        """The parameters that the gradients are taken by."""
        return Layout.of(self.module, self._layers)

    @_quantity
    def features(self) -> Tensor:
        """[N, F], in the type of the head's parameters but float32 or wider."""
        if not self.ranks.alone:
            return self._together(self.own.features)
        found = self._featurized if self.given is None else self.given
        features = self._labeled(checked_rows("featurizer", self.featurizer, found, len(self.batch.labels)))
        wide = torch.promote_types(self._head_type(features), torch.float32)
        return features.to(wide) if features.is_floating_point() else features

    @_quantity
    def logits(self) -> Tensor:
        """[N, C], float32 or wider."""
        if not self.ranks.alone:
            return self._together(self.own.logits)
        check_features(self.head, self.features)
        with torch.autocast(self.features.device.type, enabled=False):
            whole = not self.features.is_floating_point()
            features = self.features if whole else self.features.to(self._head_type(self.features))
            if is_plain_linear(self.head) and self._recording is None:
                return at_least_float32(self.head(features))
            if self.closed_form:
                return checked_rows("head", self.head, self._stack[0], len(features))
            self._buffers_before  # noqa: B018 (kept before they move)
            with double_backward_kernels(self.head), self._recording or nullcontext():
                # A copy, because the first layer may write into it.
                logits = self.head(features.clone())
            return at_least_float32(checked_rows("head", self.head, logits, len(features)))

    @lazy
    def _stack(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits of linear layers in a row, and what each layer reads."""
        features, head = self.features, cast(nn.Sequential, self.head)
        with torch.set_grad_enabled(self.graph and torch.is_grad_enabled()):
            return stack_inputs(head, features)

    def _head_type(self, features: Tensor) -> torch.dtype:
        return next((p.dtype for p in self.head.parameters() if p.is_floating_point()), features.dtype)

    @_quantity
    def losses(self) -> Tensor:
        """[N], the loss of each sample, times its weight."""
        losses = per_sample_losses(self.loss, self.logits, self.labels)
        return losses if self.weights is None else losses * self.weights

    @_quantity
    def domain_losses(self) -> Tensor:
        """[K], the mean loss of each domain."""
        if self.ranks.alone:
            return self.domain_means(self.losses)
        sums = torch.stack([losses.sum() for losses in self.own.losses.split(list(self.own_sizes))])
        return sum_over_ranks(sums, self.ranks) / sums.new_tensor(self.sizes)

    @_quantity
    def deltas(self) -> Tensor:
        """[N, C], δ = ∂ℓ/∂logits of each sample, loss/logit."""
        return loss_deltas(self.loss, self.logits, self.labels)

    @lazy
    def factors(self) -> tuple[Factors, ...]:
        """δ and what it reads, of each linear layer of the head, where these make a closed form."""
        if not isinstance(self.head, nn.Sequential):
            return (Factors(self.deltas, self.features, has_bias(self.head)),)
        deltas, (_, inputs) = self.deltas, self._stack
        graph = self.graph and torch.is_grad_enabled()
        with torch.set_grad_enabled(graph), torch.autocast(deltas.device.type, enabled=False):
            return stack_factors(self.head, inputs, deltas)

    @_quantity
    def moments(self) -> GradientMoments:
        """Moments of the head's per-sample gradients, [K, P]."""
        if not self.ranks.alone:
            return moments_over_ranks(with_missing(self.own.moments, self.own_sizes), self.ranks)
        if self.closed_form:
            with torch.autocast(self.features.device.type, enabled=False):
                if isinstance(self.head, nn.Sequential):
                    return stacked_moments(self.head, self.factors, self.sizes, self.weights)
                return linear_moments(*self.factors[0][:2], self.sizes, has_bias(self.head), self.weights)
        if self.weights is not None:
            raise InputError("moments: got weights of samples, expected a linear head; leave them out")
        if (shared := self._shared_moments()) is not None:
            return shared
        module, inputs = self.module_before, self._inputs_of_module
        return gradient_moments(module, inputs, self.labels, self.sizes, self.loss, self.route, layers=self._layers)

    @_quantity
    def gram(self) -> Tensor:
        """[N, N], inner products of the head's per-sample gradients, (loss/parameter)²."""
        inputs = self._together(self._inputs_of_module) if self.layers != HEAD else self.features
        # BackPACK has no formula of its own for it.
        route = "functional" if self.route == "backpack" else self.route
        return gradient_gram(self.module_before, inputs, self.labels, self.loss, self._layers, route)

    def generator(self, name: str) -> torch.Generator:
        """Return a generator on the CPU for what a penalty draws: the same on all ranks, and in a resumed run.

        Each call begins anew, so that the draws of a penalty under a name of its own depend on the step's seed alone,
        and not on what else was drawn.

        Raises:
            InputError: the observation has no seed; a loop of one's own passes one to ``observe``.

        Example:
            >>> batch = DomainBatch(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]), sizes=(2, 2))
            >>> seen = observe(nn.Identity(), nn.Linear(3, 2), batch, seed=100)
            >>> first, again = (torch.rand(5, generator=seen.generator("mine")) for _ in range(2))
            >>> torch.equal(first, again)
            True
        """
        if self.seed is None:
            raise InputError(
                f"generator: got an observation without a seed, which the draws of {name!r} depend on; pass another "
                "whole number at each step, the same on all ranks: observe(..., seed=step)"
            )
        return named_generator(self.seed, name)

    def detached(self) -> "Observation":
        """Return the view without a graph: what was computed is kept, the rest is computed on reading.

        Ask for it outside ``torch.no_grad()`` where the observation itself needs the graph of features and logits,
        which both share.
        """
        return self._detached if self.graph else self

    @lazy
    def _detached(self) -> "Observation":
        view = evolve(self, graph=False)
        if not self.ranks.alone:
            vars(view)["own"] = self.own.detached()
            return view
        known = {"features": self.features, "logits": self.logits, **vars(self)}
        vars(view).update({name: known[name] for name in ("_buffers_before", "closed_form") if name in known})
        if "_stack" in known:
            vars(view)["_stack"] = each_tensor(torch.detach, known["_stack"])
        for name in ("features", "logits", "losses", "domain_losses", "deltas", "moments", "gram"):
            if name in known:
                # Where attribute lookup looks first; the record's own fields stay frozen.
                vars(view)[name] = known[name].detach()
        return view

    @property
    def module_before(self) -> nn.Module:
        """The module with the buffers that it had before features and logits were computed."""
        before = self._buffers_before if self.ranks.alone else self.own._buffers_before
        return twin(self.module, before) if before else self.module

    @property
    def _featurized(self) -> Tensor:
        if self.layers == HEAD:
            return features_of(self.featurizer, self.batch.inputs, self.batch.sizes)
        self._buffers_before  # noqa: B018 (kept before they move)
        # A copy, because the moments read the inputs too.
        inputs = each_tensor(torch.clone, self.batch.inputs)
        if self._recording is None:
            return features_of(self.featurizer, inputs, self.batch.sizes)
        with double_backward_kernels(self.module), self._recording:
            return features_of(self.featurizer, inputs, self.batch.sizes)

    @lazy
    def _recording(self) -> "Recording | None":
        """Calls of the chosen layers while features and logits are computed, if moments can use the same graph."""
        inputs, featurizer = self.batch.inputs, self.featurizer
        plain = self.given is None and self.graph and self.route in ("auto", "backpack") and self.layers != HEAD
        if not plain or torch.compiler.is_compiling() or not isinstance(inputs, Tensor):
            return None
        if not isinstance(featurizer, nn.Module) or mixes_samples(featurizer):
            return None
        return recording_of(self.module, self.layers, inputs)

    def _shared_moments(self) -> GradientMoments | None:
        """Moments from the graph of the losses; None where they take a pass of their own."""
        if self._recording is None or not torch.is_grad_enabled() or len(self.labels) < len(self.batch.labels):
            return None
        return moments_of_recording(self._recording, self.batch.inputs, self.losses, self.sizes)

    @lazy
    def _buffers_before(self) -> dict[str, Tensor]:
        """Buffers of the module on first reading."""
        module = self.module if isinstance(self.featurizer, nn.Module) else self.head
        buffers = dict(module.named_buffers())
        return dict(zip(buffers, copies(buffers.values()), strict=True))

    @property
    def _layers(self) -> tuple[str, ...] | None:
        return None if self.layers == HEAD else self.layers

    @property
    def _inputs_of_module(self) -> Tensor:
        if self.layers == HEAD:
            return self.features
        if not isinstance(self.batch.inputs, Tensor):
            kind = type(self.batch.inputs).__qualname__
            raise InputError(f"layers: got {self.layers} of inputs in a {kind}, expected one tensor; use the head's")
        return self._labeled(self.batch.inputs)


def observe(
    featurizer: Callable[[Any], Tensor],
    head: nn.Module,
    batch: DomainBatch,
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
    route: Route = "auto",
    ranks: Ranks | None = None,
    features: Tensor | None = None,
    layers: tuple[str, ...] = HEAD,
    seed: int | None = None,
    lr_factor: float = 1.0,
) -> Observation:
    """Return a lazy view of a model on a batch of domains: reading a quantity computes it, once.

    Args:
        featurizer: inputs to features; ``torch.nn.Identity()`` for features that are cached.
        head: features to logits, the classifier whose gradients are matched.
        batch: samples of the domains; the featurizer is called with its ``inputs``, a tensor or a tree of tensors.
        loss: per-sample, unscaled.
        route: of the gradient moments, see ``gradient_moments``.
        ranks: the processes that share the batch, such as ``Ranks.of()``; ``batch`` is this one's part. With
            ``Ranks()`` the batch is this process's alone. None: the same, with a warning in a group of several.
        features: of ``batch.inputs``, where they are computed already; the featurizer is then not called.
        layers: whose gradients ``moments`` and ``gram`` are of: names below "featurizer" and "head", such as
            ``("featurizer.layer4", "head")``; ``("featurizer", "head")`` is the whole network. Their
            moments share the pass of the loss where features are computed here, in float32 or wider, and all samples
            have labels; elsewhere they take one of their own.
        seed: of the generators that penalties draw from, see ``Observation.generator``; for example the step.
        lr_factor: of the learning rates of networks that penalties train themselves, such as a scheduler's at the step.

    Example:
        >>> batch = DomainBatch(torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1]), sizes=(2, 4))
        >>> observe(nn.Identity(), nn.Linear(4, 2), batch).losses.shape
        torch.Size([6])
    """
    ranks = given_or_alone(ranks)
    return Observation(featurizer, head, batch, loss, route, ranks, features, layers, seed=seed, lr_factor=lr_factor)
