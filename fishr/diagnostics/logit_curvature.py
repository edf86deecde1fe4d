"""Second derivative of each sample's loss by its logits, A_n = ∂²ℓ_n/∂f∂f: the start of all curvature of a head."""

from itertools import accumulate

import torch
from attrs import frozen
from torch import Tensor

from fishr.losses import BinaryCrossEntropy, CrossEntropy, Loss, per_sample_losses


@frozen(eq=False)
class LogitCurvature:
    """A_n = diag(scale_n) − direction_n direction_nᵀ + whole_n, a symmetric C×C matrix for each sample; None is zero.

    Softmax and logistic losses are a diagonal less a rank-one matrix, so nothing of size N·C² is made for them.
    """

    scale: Tensor
    direction: Tensor | None = None
    whole: Tensor | None = None

    def diagonal(self) -> Tensor:
        """[N, C], the diagonals of the A_n."""
        found = self.scale
        if self.direction is not None:
            found = found - self.direction.square()
        return found if self.whole is None else found + self.whole.diagonal(dim1=1, dim2=2)

    def apply(self, vectors: Tensor) -> Tensor:
        """A_n u_n for vectors of shape [N, C] or, several for each sample, [N, C, M]."""
        several = vectors.ndim == 3
        scale = self.scale.unsqueeze(2) if several else self.scale
        found = scale * vectors
        if self.direction is not None:
            direction = self.direction.unsqueeze(2) if several else self.direction
            found = torch.addcmul(found, direction, (direction * vectors).sum(1, keepdim=True), value=-1)
        if self.whole is not None:
            product = self.whole @ (vectors if several else vectors.unsqueeze(2))
            found = found + (product if several else product.squeeze(2))
        return found

    def dense(self) -> Tensor:
        """[N, C, C]."""
        found = torch.diag_embed(self.scale)
        if self.direction is not None:
            found = found - self.direction.unsqueeze(2) * self.direction.unsqueeze(1)
        return found if self.whole is None else found + self.whole

    def products(self, other: "LogitCurvature") -> Tensor:
        """[N, M], tr(A_n B_m) for every sample n of this and m of the other."""
        if self.whole is not None or other.whole is not None:
            return self.dense().flatten(1) @ other.dense().flatten(1).T
        found = self.scale @ other.scale.T
        if self.direction is not None and other.direction is not None:
            found = found + (self.direction @ other.direction.T).square()
        if other.direction is not None:
            found = found - self.scale @ other.direction.square().T
        return found if self.direction is None else found - self.direction.square() @ other.scale.T

    def quadratics(self, deltas: Tensor) -> Tensor:
        """[M, N], δ_mᵀ A_n δ_m for vectors δ [M, C] and every sample n."""
        squares = deltas.square()
        found = squares @ self.scale.T
        if self.direction is not None:
            found = found - (deltas @ self.direction.T).square()
        if self.whole is not None:
            outer = (deltas.unsqueeze(2) * deltas.unsqueeze(1)).flatten(1)
            found = found + outer @ self.whole.flatten(1).T
        return found

    def rows(self, part: slice) -> "LogitCurvature":
        direction, whole = (None if tensor is None else tensor[part] for tensor in (self.direction, self.whole))
        return LogitCurvature(self.scale[part], direction, whole)

    def split(self, sizes: tuple[int, ...]) -> "tuple[LogitCurvature, ...]":
        ends = list(accumulate(sizes))
        return tuple(self.rows(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True))


def logit_curvature(loss: Loss, logits: Tensor, labels: Tensor) -> LogitCurvature:
    """Return A_n without graph: diag(p) − ppᵀ for softmax, diag(σ(1−σ)) for logistic, else by ``torch.func``.

    Under the first two A_n does not depend on the label, so that the Fisher (labels drawn from the model), the
    generalised Gauss-Newton matrix and, for a head that is linear in its parameters, the Hessian are the same matrix.
    """
    logits = logits.detach()
    if type(loss) is CrossEntropy:
        probabilities = logits.softmax(1)
        return LogitCurvature(probabilities, probabilities)
    if type(loss) is BinaryCrossEntropy:
        probabilities = logits.sigmoid()
        return LogitCurvature(probabilities * (1 - probabilities))

    def loss_of_one(logit: Tensor, label: Tensor) -> Tensor:
        return per_sample_losses(loss, logit.unsqueeze(0), label.unsqueeze(0)).sum()

    whole = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(loss_of_one)))(logits, labels)
    return LogitCurvature(torch.zeros_like(logits), None, whole.detach())
