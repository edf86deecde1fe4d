"""Risk, gradient, Fisher and Hessian quantities of each domain and of pairs of domains.

Each is a function of (head, features, labels, sizes, loss) and options by keyword, and has ``of``, which reads an
``Inspection`` instead, so that several share what they need. A whole network is a head that reads the raw inputs.
"""

from fishr.diagnostics.agreement import gradient_cosines, gradient_products, gradient_spread, sign_agreement
from fishr.diagnostics.barrier import barrier
from fishr.diagnostics.curvature import effective_rank, hessian_diagonal, hessian_trace, top_eigenvalues
from fishr.diagnostics.density import spectral_density
from fishr.diagnostics.fisher import fisher_diagonal
from fishr.diagnostics.gradients import (
    accuracy,
    empirical_fisher_diagonal,
    gradient_norm,
    gradient_variance,
    noise_scale,
    risk,
    signal_to_noise,
    total_noise,
)
from fishr.diagnostics.hessian import Eigenpairs, Hessian
from fishr.diagnostics.inconsistency import inconsistency, inconsistency_pairs
from fishr.diagnostics.inspection import HeadQuantity, Inspection
from fishr.diagnostics.measurement import NAMES, measure
from fishr.diagnostics.mismatch import (
    covariance_distances,
    hessian_cosines,
    hessian_diagonal_distance_scale_free,
    hessian_diagonal_distances,
    hessian_distances,
    variance_distance,
    variance_distance_scale_free,
    variance_distances,
)
from fishr.diagnostics.network import measure_network
from fishr.diagnostics.operators import Estimation
from fishr.diagnostics.overlap import eigenspace_overlaps, hessian_mean_gap
from fishr.diagnostics.proxies import covariance_hessian_cosine, variance_hessian_cosine, variance_hessian_error
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.second_order import (
    inconsistency_diagonal_proxy,
    inconsistency_second_order,
    inconsistency_second_order_pairs,
)
from fishr.diagnostics.sharpness import sharpness_average, sharpness_quadratic, sharpness_worst
from fishr.diagnostics.takeuchi import takeuchi, takeuchi_diagonal
from fishr.diagnostics.transfer import transfer, transfer_second_order

__all__ = [
    "NAMES",
    "Eigenpairs",
    "Estimation",
    "HeadQuantity",
    "Hessian",
    "Inspection",
    "Quantity",
    "accuracy",
    "barrier",
    "covariance_distances",
    "covariance_hessian_cosine",
    "effective_rank",
    "eigenspace_overlaps",
    "empirical_fisher_diagonal",
    "fisher_diagonal",
    "gradient_cosines",
    "gradient_norm",
    "gradient_products",
    "gradient_spread",
    "gradient_variance",
    "hessian_cosines",
    "hessian_diagonal",
    "hessian_diagonal_distance_scale_free",
    "hessian_diagonal_distances",
    "hessian_distances",
    "hessian_mean_gap",
    "hessian_trace",
    "inconsistency",
    "inconsistency_diagonal_proxy",
    "inconsistency_pairs",
    "inconsistency_second_order",
    "inconsistency_second_order_pairs",
    "measure",
    "measure_network",
    "noise_scale",
    "risk",
    "sharpness_average",
    "sharpness_quadratic",
    "sharpness_worst",
    "sign_agreement",
    "signal_to_noise",
    "spectral_density",
    "takeuchi",
    "takeuchi_diagonal",
    "top_eigenvalues",
    "total_noise",
    "transfer",
    "transfer_second_order",
    "variance_distance",
    "variance_distance_scale_free",
    "variance_distances",
    "variance_hessian_cosine",
    "variance_hessian_error",
]
