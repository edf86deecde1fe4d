"""The gradients of a step's objective: at any weights, on the whole batch or on some of its domains."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from fishr.checks import returned
from fishr.descents.descent import Measured, RiskCall, Weights
from fishr.errors import InputError
from fishr.mixed_samples import features_of, refuse_mixed_samples
from fishr.observation import Observation, observe
from fishr.ranks import Ranks, mean_over_ranks
from fishr.seeding import named_generator, seeded
from fishr.statistics.twice_differentiable import double_backward_kernels
from fishr.tensor_trees import copies
from fishr.training.compute import Compute, products
from fishr.training.experiment import Experiment
from fishr.training.model import Model, place
from fishr.training.objective import Loss, Part
from fishr.training.optimizers import Gradients
from fishr.training.state import TrainingState
from fishr.types import HEAD, DomainBatch


@frozen(eq=False)
class Seen:
    """One measurement, for the record of the step."""

    loss: Loss
    domain_losses: Tensor  # [K], NaN of domains without samples
    part: Part | Literal["risk"]  # of the objective; or a risk in its place


@frozen(eq=False)
class StepGradients:
    """See ``fishr.descents.Gradients``; ``seen`` grows by each call."""

    model: Model
    experiment: Experiment
    state: TrainingState
    batch: DomainBatch
    ranks: Ranks
    seed: int  # of the step, the same on all ranks
    seen: list[Seen] = field(factory=list[Seen])

    @property
    def domains(self) -> tuple[int, ...]:
        return tuple(k for k, size in enumerate(self.batch.sizes) if size)

    @property
    def buffers(self) -> dict[str, Tensor]:
        return self.state.buffers

    def generator(self, name: str) -> torch.Generator:
        return named_generator(self.seed, name)

    def __call__(
        self,
        weights: Weights,
        domains: tuple[int, ...] | None = None,
        after: Measured | None = None,
        risk: RiskCall | None = None,
        state: Any = (),
        twice: bool = False,
        part: Part | None = None,
    ) -> Measured:
        model, ranks, part = self.model, self.ranks, part or ("whole" if domains is None else "alone")
        before = self.state if after is None else after
        buffers, penalty = before.buffers, before.penalty
        batch, seed = self.batch if domains is None else _of_domains(self.batch, domains), self._seed(domains)
        place(model, self.state.parameters | weights, buffers)
        trainable = {name: p for name, p in model.parameters().items() if p.requires_grad}
        parameters = tuple(trainable.values())
        with seeded(seed, batch.labels.device):
            features, vjp = self._featurized(batch, parameters, seed, twice)
            seen = self._observed(batch, features)
            with products("ieee"):
                # The head's forward pass, once for all that reads its logits.
                _ = seen.logits
                if risk is None:
                    objective = self.experiment.objective
                    loss, penalty = objective.evaluate(seen, parameters, penalty, self.state.step, part)
                else:
                    value, state = risk(seen, state, self.state.step)
                    loss = Loss(value, value, torch.zeros_like(value), {}, not value.requires_grad)
                wanted = parameters
                if vjp is not None and features is not None and features.requires_grad:
                    wanted = (*parameters, features)
                found: Gradients = (None,) * len(wanted)
                if not loss.rests:
                    found = cast(
                        Gradients, torch.autograd.grad(loss.total, wanted, allow_unused=True, create_graph=twice)
                    )
            gradients, by_features = found[: len(parameters)], found[len(parameters) :]
            if vjp is not None and by_features and by_features[0] is not None:
                scale = 1.0 if self.state.scale is None else self.state.scale.value
                gradients = _added(gradients, vjp(by_features[0], scale))
        domain_losses = _of_all_domains(seen, batch.domains)
        # The optimizer needs the memory.
        del seen, features, vjp
        hessian_product = partial(self._hessian_product, weights, buffers, gradients) if twice else None
        gradients = tuple(None if gradient is None else gradient.detach() for gradient in gradients)
        by_name = dict(zip(trainable, mean_over_ranks(gradients, ranks), strict=True))
        buffers = model.buffers()
        buffers = dict(zip(buffers, copies(buffers.values()), strict=True))
        self.seen.append(Seen(loss, domain_losses, part if risk is None else "risk"))
        state = None if risk is None else state
        return Measured(loss.total.detach(), by_name, buffers, penalty, state, hessian_product)

    def compared(
        self, gradients: dict[str, Tensor | None], weights: Weights, after: Measured
    ) -> tuple[dict[str, Tensor | None], Measured]:
        if not self.experiment.objective.between:
            return gradients, after
        measured = self(weights, after=evolve(after, buffers=self.state.buffers), part="between")
        total = _added([*gradients.values()], tuple(measured.gradients[name] for name in gradients))
        return dict(zip(gradients, total, strict=True)), evolve(measured, buffers=after.buffers)

    def through(self, weights: Weights, before: Weights) -> dict[str, Tensor]:
        """See ``fishr.averages.weight_average.Through``."""
        model, inputs = self.model, self.batch.inputs.clone()
        parameters = {name: weights.get(name, value) for name, value in self.state.parameters.items()}
        place(model, parameters, {name: before.get(name, value) for name, value in self.state.buffers.items()})
        with torch.no_grad(), seeded(self._seed(None), inputs.device), self.experiment.compute.products():
            with self.experiment.compute.autocast(inputs.device):
                features = _passed(model.featurizer, inputs, self.batch.sizes, self.experiment.passes)
            model.head(_wide(features))
        return {name: buffer.clone() for name, buffer in model.buffers().items() if name in before}

    def _hessian_product(
        self, weights: Weights, buffers: Weights, slopes: Gradients, vectors: dict[str, Tensor | None]
    ) -> dict[str, Tensor | None]:
        # The graph reads the weights, in whose place another measurement may have put its own.
        place(self.model, self.state.parameters | weights, buffers)
        trainable = {name: p for name, p in self.model.parameters().items() if p.requires_grad}
        pairs = [
            (g, v)
            for g, name in zip(slopes, trainable, strict=True)
            if (v := vectors[name]) is not None and g is not None
        ]
        second: Gradients = (None,) * len(trainable)
        if terms := [(g * v).sum() for g, v in pairs if g.requires_grad]:
            with products("ieee"):
                total = torch.stack(terms).sum()
                second = cast(Gradients, torch.autograd.grad(total, [*trainable.values()], allow_unused=True))
        return dict(zip(trainable, mean_over_ranks(second, self.ranks), strict=True))

    def _seed(self, domains: tuple[int, ...] | None) -> int:
        """Return a stream of its own on each rank and for each part of the batch, so that random layers differ."""
        return self.seed + (self.ranks.number << 20) + (0 if domains is None else 1 + domains[0] << 40)

    def _featurized(
        self, batch: DomainBatch, parameters: tuple[Tensor, ...], seed: int, twice: bool
    ) -> tuple[Tensor | None, "Vjp | None"]:
        """Return features, with their vjp where they are a leaf; None where the observation runs the featurizer."""
        model, compute, passes = self.model, self.experiment.compute, self.experiment.passes
        inputs = returned("inputs of batches", batch.inputs, Tensor)
        if twice and compute.micro_batches > 1:
            raise InputError(
                f"descent: got {type(self.experiment.descent).__name__}, which takes second derivatives through the "
                f"whole network, with {compute.micro_batches} micro-batches, expected 1; set compute.micro_batches = 1"
            )
        if twice:
            with double_backward_kernels(model.featurizer), compute.products(), compute.autocast(inputs.device):
                # Compiled functions have no second derivative.
                return _wide(_passed(model.featurizer, inputs.clone(), batch.sizes, passes)), None
        # Moments of the featurizer's layers share its graph, if it is computed as they are.
        if self.experiment.layers != HEAD and compute == Compute() and passes is None:
            return None, None
        # They read the inputs again, which the forward pass may overwrite.
        inputs = inputs if self.experiment.layers == HEAD else inputs.clone()
        return featurize(model, compute, inputs, parameters, seed, batch.sizes, passes)

    def _observed(self, batch: DomainBatch, features: Tensor | None) -> Observation:
        model, experiment = self.model, self.experiment
        route, layers, factor = experiment.route or "auto", experiment.layers, experiment.lr_factor(self.state.step)
        return observe(
            model.featurizer, model.head, batch, experiment.loss, route, self.ranks, features, layers, self.seed, factor
        )


def _of_all_domains(seen: Observation, domains: int) -> Tensor:
    """Return the mean losses of all domains, [K], NaN of those without samples."""
    losses = seen.domain_losses.detach()
    if seen.domains == domains:
        return losses
    rows = torch.tensor(seen.present, device=losses.device)
    return losses.new_full((domains,), math.nan).index_copy(0, rows, losses)


def _of_domains(batch: DomainBatch, domains: tuple[int, ...]) -> DomainBatch:
    """Return the samples of some domains; the others are missing."""
    sizes = tuple(size if k in domains else 0 for k, size in enumerate(batch.sizes))
    inputs, labels = (whole.split(list(batch.sizes)) for whole in (batch.inputs, batch.labels))
    chosen = sorted(domains)
    return DomainBatch(torch.cat([inputs[k] for k in chosen]), torch.cat([labels[k] for k in chosen]), sizes)


Vjp = Callable[[Tensor, float], Gradients]


def featurize(
    model: Model,
    compute: Compute,
    inputs: Tensor,
    parameters: tuple[Tensor, ...],
    seed: int,
    sizes: tuple[int, ...],
    passes: str | None = None,
) -> tuple[Tensor, Vjp]:
    """Return a batch's features, a leaf of the graph, and their vjp by the parameters, to be called once."""
    if compute.channels_last and inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)

    featurizer = model.compiled or model.featurizer

    def forward(part: Tensor) -> Tensor:
        with compute.products(), compute.autocast(part.device):
            return _passed(featurizer, part, sizes, passes)

    def vjp(features: Tensor, gradient: Tensor, scale: float) -> Gradients:
        if not features.requires_grad:
            return (None,) * len(parameters)
        scaled = gradient if scale == 1 else gradient * scale
        with compute.products():
            product: Any = _Product.apply(features, scaled.to(features.dtype))
            grad = torch.autograd.grad(product, parameters, allow_unused=True)
        found = cast(Gradients, grad)
        return found if scale == 1 else tuple(None if g is None else g / scale for g in found)

    parts = inputs.tensor_split(min(compute.micro_batches, len(inputs)))
    if len(parts) == 1:
        features = forward(inputs)
        return _leaf(features.detach(), features.requires_grad), partial(vjp, features)
    refuse_mixed_samples(model.featurizer, "micro_batches", "use compute.micro_batches = 1")

    with torch.no_grad():
        found = list[Tensor]()
        for index, part in enumerate(parts):
            with seeded(seed + 1 + index, part.device):
                # A copy, because the featurizer may work in place, and the second pass reads the part again.
                found.append(forward(part.clone()))
    kept = [buffer.detach().clone() for buffer in model.featurizer.buffers()]

    def vjp_of_parts(gradient: Tensor, scale: float) -> Gradients:
        total: Gradients = (None,) * len(parameters)
        for index, (part, of_part) in enumerate(zip(parts, gradient.split([len(p) for p in parts]), strict=True)):
            with seeded(seed + 1 + index, part.device):
                features = forward(part)
            total = _added(total, vjp(features, of_part, scale))
        for buffer, before in zip(model.featurizer.buffers(), kept, strict=True):
            buffer.data = before
        return total

    return _leaf(torch.cat(found), any(p.requires_grad for p in model.featurizer.parameters())), vjp_of_parts


class _Product(torch.autograd.Function):
    """A scalar whose gradient by the features is ``gradient``, to be differentiated once."""

    # torch.autograd.grad with a vector imports sympy, a third of a second, to compare two shapes.
    @staticmethod
    def forward(ctx: Any, features: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return features.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0], None


def _passed(featurizer: Callable[..., Tensor], rows: Tensor, sizes: tuple[int, ...], passes: str | None) -> Tensor:
    """Return features of a batch, in one pass or in one for each domain."""
    if passes is None:
        return features_of(featurizer, rows, sizes)
    alone = [tuple(size if k == domain else 0 for k, size in enumerate(sizes)) for domain in range(len(sizes))]
    parts = zip(rows.split(list(sizes)), alone, strict=True)
    return torch.cat([features_of(featurizer, part, own) for part, own in parts if len(part)])


def _leaf(features: Tensor, trained: bool) -> Tensor:
    return _wide(features).requires_grad_(trained) if features.is_floating_point() else features


def _wide(features: Tensor) -> Tensor:
    if not features.is_floating_point():
        return features
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _added(left: Sequence[Tensor | None], right: Gradients) -> Gradients:
    return tuple(b if a is None else a if b is None else a + b for a, b in zip(left, right, strict=True))
