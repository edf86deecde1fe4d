"""Second derivative of each sample's loss by its logits, A_n = ∂²ℓ_n/∂f∂f: the start of all curvature of a head."""

from itertools import accumulate

import torch
from attrs import frozen
from torch import Tensor

from fishr.losses import BinaryCrossEntropy, CrossEntropy, Loss, SquaredError, per_sample_losses


@frozen(eq=False)
class LogitCurvature:
    """A_n = diag(scale_n) − direction_n direction_nᵀ + whole_n, a symmetric C×C matrix for each sample."""

    scale: Tensor
    direction: Tensor
    whole: Tensor | None = None

    @property
    def convex(self) -> bool:
        """True if no A_n has a negative eigenvalue, as for the losses in closed form."""
        if self.whole is None:
            return True
        values = torch.linalg.eigvalsh(self.dense())
        return bool(values.min() >= -(torch.finfo(values.dtype).eps ** 0.5) * values.max())

    def diagonal(self) -> Tensor:
        """[N, C], the diagonals of the A_n."""
        found = self.scale - self.direction.square()
        return found if self.whole is None else found + self.whole.diagonal(dim1=1, dim2=2)

    def apply(self, vectors: Tensor) -> Tensor:
        """[N, C, M], A_n U_n for M vectors of each sample."""
        direction = self.direction.unsqueeze(2)
        inner = (direction * vectors).sum(1, keepdim=True)
        found = torch.addcmul(self.scale.unsqueeze(2) * vectors, direction, inner, value=-1)
        return found if self.whole is None else found + self.whole @ vectors

    def dense(self) -> Tensor:
        """[N, C, C]."""
        found = torch.diag_embed(self.scale) - self.direction.unsqueeze(2) * self.direction.unsqueeze(1)
        return found if self.whole is None else found + self.whole

    def products(self, other: "LogitCurvature") -> Tensor:
        """[N, M], tr(A_n B_m) for every sample n of this and m of the other."""
        if self.whole is not None or other.whole is not None:
            return self.dense().flatten(1) @ other.dense().flatten(1).T
        found = self.scale @ other.scale.T + (self.direction @ other.direction.T).square()
        found = found - self.scale @ other.direction.square().T
        return found - self.direction.square() @ other.scale.T

    def quadratics(self, deltas: Tensor) -> Tensor:
        """[M, N], δ_mᵀ A_n δ_m for vectors δ [M, C] and every sample n."""
        found = deltas.square() @ self.scale.T - (deltas @ self.direction.T).square()
        if self.whole is not None:
            outer = (deltas.unsqueeze(2) * deltas.unsqueeze(1)).flatten(1)
            found = found + outer @ self.whole.flatten(1).T
        return found

    def rows(self, part: slice) -> "LogitCurvature":
        whole = None if self.whole is None else self.whole[part]
        return LogitCurvature(self.scale[part], self.direction[part], whole)

    def split(self, sizes: tuple[int, ...]) -> "tuple[LogitCurvature, ...]":
        ends = list(accumulate(sizes))
        return tuple(self.rows(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True))


def logit_curvature(loss: Loss, logits: Tensor, labels: Tensor) -> LogitCurvature:
    """Return A_n without graph, in closed form for the package's losses, else by ``torch.func``."""
    # s(diag(p) − ppᵀ) for softmax with s the sum of the weighted targets, diag(sσ(1−σ)) for logistic, 2I for squares.
    # A subclass may compute something else.
    logits = logits.detach()
    if type(loss) is CrossEntropy:
        probabilities, sums = logits.softmax(1), loss.targets(logits, labels).sum(1, keepdim=True)
        return LogitCurvature(sums * probabilities, sums.sqrt() * probabilities)
    if type(loss) is BinaryCrossEntropy:
        probabilities, scales = logits.sigmoid(), loss.scales(loss.targets(logits, labels))
        return LogitCurvature(scales * probabilities * (1 - probabilities), torch.zeros_like(probabilities))
    if type(loss) is SquaredError:
        return LogitCurvature(torch.full_like(logits, 2.0), torch.zeros_like(logits))

    def loss_of_one(logit: Tensor, label: Tensor) -> Tensor:
        return per_sample_losses(loss, logit.unsqueeze(0), label.unsqueeze(0)).sum()

    whole = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(loss_of_one)))(logits, labels)
    return LogitCurvature(torch.zeros_like(logits), torch.zeros_like(logits), whole.detach())
