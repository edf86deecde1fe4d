"""What the head is like on the training domains at one moment of a run."""

import math

import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.data.domains import Domain
from fishr.data.reading import tensor_of
from fishr.diagnostics import hessian_diagonal, inconsistency
from fishr.landscape import Plane, axis, linear_scores, network_scores, random_directions, weights_of
from fishr.losses import predictions_of
from fishr.observation import Observation, observe
from fishr.penalties import Penalty, Scaled
from fishr.ranks import ALONE
from fishr.statistics import scale_free_distance
from fishr.training.experiment import Experiment
from fishr.training.frozen_features import domain_features
from fishr.training.keeping import Recording
from fishr.training.model import Model, evaluating, place
from fishr.training.state import TrainingState
from fishr.types import HEAD, DomainBatch

_POINTS = 11


@frozen(eq=False)
class Moment:
    """The head on the training domains, with the weights of one moment.

    Args:
        risks: [K], loss.
        accuracies: [K], shares from 0 to 1.
        mean: [K, P], mean of the per-sample gradients, loss/parameter.
        variance: [K, P], their variance, (loss/parameter)².
        hessian_diagonal: [K, P], loss/parameter².
        weights: [P], the head's trainable parameters.
        penalties: each term of the objective without its weight, whether it has one at this step or not.
        inconsistency: of the domains' risks on a plane through the head's weights, loss.
        variance_distance_scale_free: (1/K) Σ ‖v_e − v̄‖²/‖v̄‖².
        hessian_distance_scale_free: the same of the Hessians' diagonals.
    """

    risks: Tensor
    accuracies: Tensor
    mean: Tensor
    variance: Tensor
    hessian_diagonal: Tensor
    weights: Tensor
    penalties: dict[str, Tensor]
    inconsistency: Tensor
    variance_distance_scale_free: Tensor
    hessian_distance_scale_free: Tensor


def measure_moment(
    model: Model, experiment: Experiment, state: TrainingState, domains: tuple[Domain, ...], recording: Recording
) -> Moment:
    """The head's statistics with the weights of a state, in eval mode; state, modes and generators stay as they are.

    Penalties with a memory are evaluated on the state's memory, and what they would remember is dropped.

    Args:
        model: the experiment's modules, on the domains' device.
        experiment: for its loss, precision and penalties.
        state: the weights, and the penalties' memory.
        domains: K training domains.
        recording: how many rows of each, and ε of the inconsistency.

    Returns:
        The statistics, without a graph.

    Raises:
        InputError: the head has no trainable parameter, or one without statistics.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.state import build_model, first_state
        >>> experiment = colored_digits()
        >>> domains = experiment.data(experiment.seed, None).training
        >>> model = build_model(experiment, experiment.data(experiment.seed, None))
        >>> moment = measure_moment(model, experiment, first_state(experiment, model, 2), domains, Recording(every=1))
        >>> moment.variance.shape, list(moment.penalties)
        (torch.Size([2, 391]), ['fishr'])
    """
    looked_at = [domain.part(range(len(domain.labels))[: recording.samples]) for domain in domains]
    features = torch.cat([z for d in looked_at for z, _ in domain_features(model, experiment, state, d)])
    batch = DomainBatch(features, torch.cat([d.labels for d in looked_at]), tuple(len(d.labels) for d in looked_at))
    place(model, state.parameters, state.buffers)
    with evaluating(model):
        seen = observe(nn.Identity(), model.head, batch, experiment.loss, experiment.moments_route, ALONE)
        right = (predictions_of(experiment.loss, seen.logits) == seen.labels).double().split(list(seen.sizes))
        moments = seen.moments.detach()
        whole = seen if experiment.layers == HEAD else _whole(model, experiment, looked_at)
        diagonal = hessian_diagonal(model.head, features, seen.labels, seen.sizes, experiment.loss).value
        trainable = [p.detach().flatten() for p in model.head.parameters() if p.requires_grad]
        return Moment(
            risks=seen.domain_losses.detach(),
            accuracies=torch.stack([part.mean() for part in right]),
            mean=moments.mean,
            variance=moments.variance,
            hessian_diagonal=diagonal,
            weights=torch.cat(trainable),
            penalties=_penalties(experiment, state, whole),
            inconsistency=_inconsistency(seen, recording.epsilon),
            variance_distance_scale_free=scale_free_distance(moments.variance),
            hessian_distance_scale_free=scale_free_distance(diagonal),
        )


def _penalties(experiment: Experiment, state: TrainingState, seen: Observation) -> dict[str, Tensor]:
    values = dict[str, Tensor]()
    for name, penalty in experiment.objective.penalty.terms.items():
        value, _ = _without_weight(penalty)(seen, state.penalty[name], state.step)
        values[name] = value.detach()
    return values


def _whole(model: Model, experiment: Experiment, domains: list[Domain]) -> Observation:
    """What penalties see that read gradients of other layers than the head's: the inputs themselves."""
    inputs = torch.cat([tensor_of(domain.inputs).to(domain.labels.device) for domain in domains])
    labels = torch.cat([domain.labels for domain in domains])
    batch = DomainBatch(inputs, labels, tuple(len(domain.labels) for domain in domains))
    route, layers = experiment.moments_route, experiment.layers
    return observe(model.featurizer, model.head, batch, experiment.loss, route, ALONE, layers=layers)


def _without_weight(penalty: Penalty) -> Penalty:
    return _without_weight(penalty.penalty) if isinstance(penalty, Scaled) else penalty


def _inconsistency(seen: Observation, epsilon: float) -> Tensor:
    """Of the domains' risks on a plane of filter-normalized random directions, of the same seed at every moment.

    NaN where there is no such plane: weights that are all zero or not finite, or none of two dimensions.
    """
    centre = weights_of(seen.head)
    length = sum(float(value.norm()) for value in centre.values() if value.ndim > 1)
    if not 0 < length < math.inf:
        return torch.tensor(torch.nan)
    directions = random_directions(centre, seed=0)
    plane, ends = Plane(centre, *directions.vectors), axis(-1.0, 1.0, _POINTS)
    parts = [part.split(list(seen.sizes)) for part in (seen.features, seen.labels)]
    samples = list(zip(*parts, strict=True))
    if seen.closed_form:
        scores = linear_scores(plane, samples, ends, ends, seen.loss)
    else:
        scores = network_scores(seen.head, plane, samples, ends, ends, seen.loss)
    return inconsistency(scores.losses, (_POINTS // 2, _POINTS // 2), epsilon).value
