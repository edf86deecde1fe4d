"""Statistics of the head on the training domains at one step of a run."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from fishr.data.domains import Domain
from fishr.data.reading import tensor_of
from fishr.diagnostics.quantities.hessian_spectrum import hessian_diagonal
from fishr.diagnostics.quantities.risk_grids import inconsistency
from fishr.landscape.directions import random_directions
from fishr.landscape.grid import axis
from fishr.landscape.linear_surface import linear_scores
from fishr.landscape.network_surface import network_scores
from fishr.landscape.plane import Plane, weights_of
from fishr.losses import shares_correct
from fishr.observation import Observation, observe
from fishr.penalties import Penalty, Scaled
from fishr.ranks import ALONE
from fishr.statistics import scale_free_distance
from fishr.training.artifacts import Recording
from fishr.training.experiment import Experiment
from fishr.training.frozen_features import domain_features
from fishr.training.model import Model, evaluating, place
from fishr.training.state import TrainingState
from fishr.types import HEAD, DomainBatch

_POINTS = 11


def head_statistics(
    model: Model, experiment: Experiment, state: TrainingState, domains: tuple[Domain, ...], recording: Recording
) -> dict[str, Any]:
    """Return the head's statistics with a state's weights, in eval mode, without a graph or penalty weights."""
    read = [domain.part(range(len(domain.labels))[: recording.samples]) for domain in domains]
    features = torch.cat([z for d in read for z, _ in domain_features(model, experiment, state, d)])
    batch = DomainBatch(features, torch.cat([d.labels for d in read]), tuple(len(d.labels) for d in read))
    place(model, state.parameters, state.buffers)
    with evaluating(model):
        route, seed = experiment.route or "auto", state.step
        seen = observe(nn.Identity(), model.head, batch, experiment.loss, route, ALONE, seed=seed)
        whole = seen if experiment.layers == HEAD else _whole(model, experiment, read, seed)
        moments, diagonal = seen.moments.detach(), hessian_diagonal.of(seen).value
        return {
            "risks": seen.domain_losses.detach(),
            "accuracies": seen.domain_means(shares_correct(seen.loss, seen.logits, seen.labels).double()),
            "mean": moments.mean,
            "variance": moments.variance,
            "hessian_diagonal": diagonal,
            "weights": torch.cat([p.detach().flatten() for p in model.head.parameters() if p.requires_grad]),
            "penalties": {
                name: _without_weight(term)(whole, state.penalty[name], state.step)[0].detach()
                for name, term in experiment.objective.penalty.terms.items()
            },
            "inconsistency": _inconsistency(seen, recording.epsilon),
            "variance_distance_scale_free": scale_free_distance(moments.variance),
            "hessian_distance_scale_free": scale_free_distance(diagonal),
        }


def _whole(model: Model, experiment: Experiment, domains: list[Domain], seed: int) -> Observation:
    """Return the view on the inputs themselves, for penalties on other layers than the head's."""
    inputs = torch.cat([tensor_of(domain.inputs).to(domain.labels.device) for domain in domains])
    labels = torch.cat([domain.labels for domain in domains])
    batch = DomainBatch(inputs, labels, tuple(len(domain.labels) for domain in domains))
    route, layers = experiment.route or "auto", experiment.layers
    return observe(model.featurizer, model.head, batch, experiment.loss, route, ALONE, layers=layers, seed=seed)


def _without_weight(penalty: Penalty) -> Penalty:
    return _without_weight(penalty.penalty) if isinstance(penalty, Scaled) else penalty


def _inconsistency(seen: Observation, epsilon: float) -> Tensor:
    """Return the inconsistency on a plane of fixed random directions; NaN where there is no such plane."""
    center = weights_of(seen.head)
    length = sum(float(value.norm()) for value in center.values() if value.ndim > 1)
    if not 0 < length < math.inf:
        return torch.tensor(torch.nan)
    directions = random_directions(center, seed=0)
    plane, ends = Plane(center, *directions.vectors), axis(-1.0, 1.0, _POINTS)
    samples = list(seen.domain_samples)
    if seen.linear:
        scores = linear_scores(plane, samples, ends, ends, seen.loss)
    else:
        scores = network_scores(seen.head, plane, samples, ends, ends, seen.loss)
    return inconsistency(scores.losses, (_POINTS // 2, _POINTS // 2), epsilon).value
