"""A linear head on a plane of its weights: its logits are affine in the coordinates, so features are read once.

logits(α, β) = ZWᵀ + b + α(ZD₁ᵀ + d₁) + β(ZD₂ᵀ + d₂): three matrix products instead of one for each point of the grid.
"""

import torch
from torch import Tensor
from torch.nn import functional

from fishr.landscape.margins import margins_of
from fishr.landscape.plane import Plane, Samples, Scores, total_scores
from fishr.landscape.separable import hit_counts, loss_sums
from fishr.landscape.weights import Weights
from fishr.losses import CrossEntropy, Loss, check_labels

# Logits of one intermediate result.
_BLOCK = 1 << 21


def linear_scores(
    plane: Plane,
    samples: Samples,
    xs: Tensor,
    ys: Tensor,
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
) -> Scores:
    """Losses and accuracies of a linear head at all points of a grid, in memory bounded by the grid's size.

    For cross-entropy and the logistic loss the exponentials factor into one for α and one for β, in float64; any
    other loss is evaluated point by point on the affine logits.

    Args:
        plane: of weights named "weight" [C, F] and, if there is one, "bias" [C].
        samples: of each domain, features [n, F] and labels.
        xs: [nx], values of α.
        ys: [ny], values of β.
        loss: per-sample.

    Returns:
        Scores of every domain, on the CPU.

    Raises:
        InputError: the loss does not take the labels.

    Example:
        >>> weights = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
        >>> plane = Plane(weights, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
        >>> data = (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]))
        >>> linear_scores(plane, [data], torch.linspace(-1, 1, 3), torch.zeros(1)).losses.flatten()
        tensor([0.6931, 0.6931, 0.6931], dtype=torch.float64)
    """
    found = [_domain_scores(plane, *data, xs, ys, loss) for data in samples]
    return Scores(torch.stack([each[0] for each in found]), torch.stack([each[1] for each in found]))


def _domain_scores(plane: Plane, features: Tensor, labels: Tensor, xs: Tensor, ys: Tensor, loss: Loss) -> Tensor:
    xs, ys = (values.to(features.device, torch.float64) for values in (xs, ys))
    total = torch.zeros(2, len(xs), len(ys), dtype=torch.float64, device=features.device)
    outputs = len(plane.centre["weight"])
    check_labels(loss, labels, outputs)
    for rows, wanted in zip(*(part.split(max(1, _BLOCK // (3 * outputs))) for part in (features, labels)), strict=True):
        logits = affine_logits(plane, rows)
        margins = margins_of(loss, logits, wanted)
        if margins is None:
            total += _point_by_point(logits, wanted, xs, ys, loss)
        else:
            total[0] += loss_sums(margins, xs, ys)
            total[1] += hit_counts(margins, xs, ys) * (len(rows) / len(margins.base))
    return (total / len(features)).cpu()


def affine_logits(plane: Plane, features: Tensor) -> Tensor:
    """[3, N, C]: logits at the origin, and by how much they grow with α and with β.

    Example:
        >>> plane = Plane({"weight": torch.ones(1, 2)}, {"weight": torch.tensor([[2.0, 0.0]])})
        >>> affine_logits(plane, torch.ones(1, 2)).flatten()
        tensor([2., 2., 0.])
    """
    dtype = torch.promote_types(features.dtype, torch.promote_types(plane.centre["weight"].dtype, torch.float32))
    features = features.to(dtype)

    def logits(weights: Weights) -> Tensor:
        cast = {name: value.to(dtype) for name, value in weights.items()}
        return functional.linear(features, cast["weight"], cast.get("bias"))

    centre = logits(plane.centre)
    second = torch.zeros_like(centre) if plane.second is None else logits(plane.second)
    return torch.stack([centre, logits(plane.first), second])


def _point_by_point(logits: Tensor, labels: Tensor, xs: Tensor, ys: Tensor, loss: Loss) -> Tensor:
    centre, first, second = logits
    points = torch.cartesian_prod(xs, ys).to(logits)
    found = list[Tensor]()
    for x, y in points:
        found.append(total_scores(loss, torch.addcmul(torch.addcmul(centre, first, x), second, y), labels))
    return torch.stack(found, 1).unflatten(1, (len(xs), len(ys)))
