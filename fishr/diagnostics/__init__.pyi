from .curvature import Curvature
from .hessian import Eigenpairs, Hessian
from .measurement import measure, measure_network
from .quantities.agreement import (
    gradient_cosines,
    gradient_products,
    gradient_spread,
    sign_agreement,
    transfer,
    transfer_second_order,
)
from .quantities.domain_distances import (
    covariance_distances,
    hessian_cosines,
    hessian_diagonal_distance_scale_free,
    hessian_diagonal_distances,
    hessian_distances,
    variance_distance,
    variance_distance_scale_free,
    variance_distances,
)
from .quantities.fisher import fisher_diagonal
from .quantities.gradient_noise import (
    accuracy,
    empirical_fisher_diagonal,
    gradient_norm,
    gradient_variance,
    noise_scale,
    risk,
    signal_to_noise,
    total_noise,
)
from .quantities.hessian_overlap import eigenspace_overlaps, hessian_mean_gap
from .quantities.hessian_spectrum import (
    effective_rank,
    hessian_diagonal,
    hessian_trace,
    spectral_density,
    top_eigenvalues,
)
from .quantities.information_criterion import takeuchi, takeuchi_diagonal
from .quantities.risk_grids import barrier, inconsistency, inconsistency_pairs
from .quantities.second_order_inconsistency import (
    inconsistency_diagonal_proxy,
    inconsistency_second_order,
    inconsistency_second_order_pairs,
)
from .quantities.sharpness import sharpness_average, sharpness_quadratic, sharpness_worst
from .quantities.variance_proxy import covariance_hessian_cosine, variance_hessian_cosine, variance_hessian_error
from .registry import Diagnostic, diagnostic, diagnostics
from .uncertainty import Estimate, Estimation, Quantity

NAMES: tuple[str, ...]
Inspection = Curvature.of

__all__ = [
    "NAMES",
    "Curvature",
    "Diagnostic",
    "Eigenpairs",
    "Estimate",
    "Estimation",
    "Hessian",
    "Inspection",
    "Quantity",
    "accuracy",
    "barrier",
    "covariance_distances",
    "covariance_hessian_cosine",
    "diagnostic",
    "diagnostics",
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
