from .distances import (
    covariance_products,
    distance_to_mean,
    distance_to_mean_of_products,
    pairwise_distances,
    pairwise_distances_of_products,
    scale_free_distance,
)
from .functional_moments import per_sample_gradients
from .linear_heads import linear_moments
from .merge import merge_moments
from .moments import gradient_gram, gradient_moments

__all__ = [
    "covariance_products",
    "distance_to_mean",
    "distance_to_mean_of_products",
    "gradient_gram",
    "gradient_moments",
    "linear_moments",
    "merge_moments",
    "pairwise_distances",
    "pairwise_distances_of_products",
    "per_sample_gradients",
    "scale_free_distance",
]
