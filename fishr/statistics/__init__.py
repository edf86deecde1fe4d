"""Per-domain statistics of the head's per-sample gradients, and distances between domains."""

from fishr.statistics.closed_form import linear_moments
from fishr.statistics.distances import Reduction, distance_to_mean, pairwise_distances, scale_free_distance
from fishr.statistics.functional_route import per_sample_gradients
from fishr.statistics.fused_gap import GapRule, linear_gap
from fishr.statistics.gram import (
    covariance_products,
    distance_to_mean_of_products,
    linear_gram,
    pairwise_distances_of_products,
)
from fishr.statistics.merge import merge_moments
from fishr.statistics.moments import Route, gradient_gram, gradient_moments

__all__ = [
    "GapRule",
    "Reduction",
    "Route",
    "covariance_products",
    "distance_to_mean",
    "distance_to_mean_of_products",
    "gradient_gram",
    "gradient_moments",
    "linear_gap",
    "linear_gram",
    "linear_moments",
    "merge_moments",
    "pairwise_distances",
    "pairwise_distances_of_products",
    "per_sample_gradients",
    "scale_free_distance",
]
