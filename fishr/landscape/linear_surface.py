"""Scores of a linear head on a plane of its weights, without a forward pass a point.

The logits are affine in the coordinates, f(α, β) = ZWᵀ + b + α(ZD₁ᵀ + d₁) + β(ZD₂ᵀ + d₂): three matrix products for the
whole grid. The exponentials of margins factor, exp(t + αa + βb) = exp(αa)·exp(t + βb), so the sum over classes at all
points is one matrix product a sample. Along α, a sample is classified correctly on one interval.
"""

from collections.abc import Iterator

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional

from fishr.landscape.plane import Plane, Samples, Scores, Weights, total_scores
from fishr.losses import BinaryCrossEntropy, CrossEntropy, Loss, check_labels, labeled_samples

# Logits of one chunk of samples.
_CHUNK = 1 << 21
# Numbers of one intermediate result: small enough for a core's cache.
_BLOCK = 1 << 18
# exp(±650) is still a normal float64, and so is the sum of many of them.
_LARGEST_EXPONENT = 650.0


def linear_scores(
    plane: Plane,
    samples: Samples,
    xs: Tensor,
    ys: Tensor,
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
) -> Scores:
    """Return losses and accuracies of a linear head at all points of a grid, in memory bounded by the grid's size.

    Cross-entropy and the logistic loss use the separable exponentials, in float64. Any other loss is evaluated point by
    point on the affine logits.

    Args:
        plane: weights named "weight" [C, F] and, if there is one, "bias" [C].
        samples: features [n, F] and labels of each domain.
        xs: [nx], values of α.
        ys: [ny], values of β.

    Returns:
        Scores of all domains, on the CPU.

    Raises:
        InputError: the loss does not accept the labels.

    Example:
        >>> weights = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
        >>> plane = Plane(weights, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)})
        >>> data = (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]))
        >>> linear_scores(plane, [data], torch.linspace(-1, 1, 3), torch.zeros(1)).losses.flatten()
        tensor([0.6931, 0.6931, 0.6931], dtype=torch.float64)
    """
    losses, accuracies = torch.stack([_domain_scores(plane, *data, xs, ys, loss) for data in samples], 1)
    return Scores(losses, accuracies)


def _domain_scores(plane: Plane, features: Tensor, labels: Tensor, xs: Tensor, ys: Tensor, loss: Loss) -> Tensor:
    xs, ys = (values.to(features.device, torch.float64) for values in (xs, ys))
    total = torch.zeros(2, len(xs), len(ys), dtype=torch.float64, device=features.device)
    outputs = len(plane.center["weight"])
    check_labels(loss, labels, outputs)
    features, labels = labeled_samples(loss, features, labels)
    chunk = max(1, _CHUNK // (3 * outputs))
    for some, own in zip(features.split(chunk), labels.split(chunk), strict=True):
        logits = affine_logits(plane, some)
        margins = _margins_of(loss, logits, own)
        if margins is None:
            center, first, second = logits
            points = torch.cartesian_prod(xs, ys).to(logits)
            moved = (torch.addcmul(torch.addcmul(center, first, x), second, y) for x, y in points)
            total += torch.stack([total_scores(loss, f, own) for f in moved], 1).unflatten(1, (len(xs), len(ys)))
        else:
            total[0] += _loss_sums(margins, xs, ys)
            total[1] += _hit_counts(margins, xs, ys) * (len(some) / len(margins.base))
    return (total / len(features)).cpu()


def affine_logits(plane: Plane, features: Tensor) -> Tensor:
    """Return [3, N, C]: logits at the origin, and their slopes along α and β."""
    dtype = torch.promote_types(features.dtype, torch.promote_types(plane.center["weight"].dtype, torch.float32))
    features = features.to(dtype)

    def logits(weights: Weights) -> Tensor:
        cast = {name: value.to(dtype) for name, value in weights.items()}
        return functional.linear(features, cast["weight"], cast.get("bias"))

    center = logits(plane.center)
    second = torch.zeros_like(center) if plane.second is None else logits(plane.second)
    return torch.stack([center, logits(plane.first), second])


@frozen(eq=False)
class _Margins:
    """R losses log(1 + Σ_m exp t_rm) with margins t = base + α·first + β·second, each [R, M], float64."""

    # For cross-entropy t_nc = f_nc − f_ny, with −∞ in the label's own column. For the logistic loss t = f where the
    # label is 0 and −f where it is 1, one loss an output. A prediction is correct where all margins are negative, or
    # zero where ``wins_ties`` [R, M].

    base: Tensor
    first: Tensor
    second: Tensor
    wins_ties: Tensor

    def blocks(self, rows: Tensor, xs: Tensor, ys: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        width = self.base.shape[1] * (len(xs) + len(ys)) + len(xs) * len(ys)
        for index in rows.split(max(1, _BLOCK // width)):
            yield self.base[index], self.first[index], self.second[index], self.wins_ties[index]


def _margins_of(loss: Loss, logits: Tensor, labels: Tensor) -> _Margins | None:
    """Return the margins; None for soft labels and all losses but the two, with their default settings."""
    # A subclass may compute something else.
    if type(loss) is CrossEntropy and loss.one_hot(labels) and loss.class_weights is None:
        # In float64 from here on: margins of two large logits are small.
        logits = logits.double()
        columns = labels.unsqueeze(1)
        base, first, second = logits - logits.gather(2, columns.expand(3, -1, 1))
        # Of several largest logits, the first is predicted.
        wins_ties = torch.arange(logits.shape[2], device=labels.device) > columns
        return _Margins(base.scatter(1, columns, -torch.inf), first, second, wins_ties)
    if loss == BinaryCrossEntropy() and bool(((labels == 0) | (labels == 1)).all()):
        targets = labels.reshape(-1, 1)
        base, first, second = logits.double().flatten(1).unsqueeze(2) * (1 - 2 * targets)
        return _Margins(base, first, second, targets == 0)
    return None


def _loss_sums(margins: _Margins, xs: Tensor, ys: Tensor) -> Tensor:
    """Return [nx, ny], the summed loss at each point."""
    total = torch.zeros(len(xs), len(ys), dtype=torch.float64, device=margins.base.device)
    # Where no factor and no product can leave float64's range, nothing is lost to under- or overflow.
    along = xs.abs().amax() * _largest(margins.first) + ys.abs().amax() * _largest(margins.second)
    separable = _largest(margins.base) + along < _LARGEST_EXPONENT
    for base, first, second, _ in margins.blocks(separable.nonzero().flatten(), xs, ys):
        along_x = (first.unsqueeze(1) * xs.unsqueeze(1)).exp_()
        along_y = torch.addcmul(base.unsqueeze(2), second.unsqueeze(2), ys).exp_()
        total += torch.bmm(along_x, along_y).log1p_().sum(0)
    for base, first, second, _ in margins.blocks((~separable).nonzero().flatten(), xs, ys):
        for i, x in enumerate(xs):
            exponents = torch.addcmul((base + x * first).unsqueeze(2), second.unsqueeze(2), ys)
            total[i] += torch.logsumexp(torch.cat([torch.zeros_like(exponents[:, :1]), exponents], 1), 1).sum(0)
    return total


def _hit_counts(margins: _Margins, xs: Tensor, ys: Tensor) -> Tensor:
    """Return [nx, ny], the number of correct predictions at each point."""
    # At a given β each margin is negative on one side of one value of α, so a prediction is correct on an interval.
    total = torch.zeros(len(xs), len(ys), dtype=torch.float64, device=margins.base.device)
    for base, first, second, wins_ties in margins.blocks(torch.arange(len(margins.base), device=total.device), xs, ys):
        slope, wins = first.unsqueeze(1), wins_ties.unsqueeze(1)
        value = torch.addcmul(base.unsqueeze(1), second.unsqueeze(1), ys.unsqueeze(1))
        # A margin of 0 that loses its tie is as bad as a positive one.
        never = (slope == 0) & ~((value < 0) | (wins & (value == 0)))
        end = -value / slope
        inner = torch.nextafter(end, torch.copysign(end.new_tensor(torch.inf), -slope))
        end = torch.where(wins, end, inner)
        upper = torch.where(slope > 0, end, torch.inf).amin(2).masked_fill(never.any(2), -torch.inf)
        lower = torch.where(slope < 0, end, -torch.inf).amax(2)
        at = xs.view(1, -1, 1)
        total += ((at >= lower.unsqueeze(1)) & (at <= upper.unsqueeze(1))).sum(0)
    return total


def _largest(part: Tensor) -> Tensor:
    return part.masked_fill(part == -torch.inf, 0.0).abs().amax(1)
