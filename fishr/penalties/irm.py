"""IRM: penalize the gradient of each domain's risk by a scale on the logits."""

from typing import Literal

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import one_of
from fishr.errors import InputError
from fishr.observation import Observation
from fishr.penalties.penalty import Memoryless


@frozen
class IRM(Memoryless):
    """(1/K) Σ_e (∂_s R_e(s·f))² at s = 1, with ∂_s ℓ_n = δ_n · f_n, which needs no second backward pass.

    K counts the domains present in the batch.

    Args:
        form: ``"squared"`` (IRM's paper), or ``"half_batches"`` (DomainBed): the product of the gradients on the even
            and the odd samples of each domain, an unbiased estimate of the square.

    Raises:
        InputError: another form; when called, half batches of a domain with a single sample.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.zeros(2, 3), torch.tensor([0, 1]), sizes=(2,))
        >>> IRM()(observe(torch.nn.Identity(), torch.nn.Linear(3, 2, bias=False), batch), (), 0)[0].item()
        0.0

    Source:
        Arjovsky et al. 2019 (arXiv 1907.02893), IRMv1.
    """

    form: Literal["squared", "half_batches"] = field(default="squared", validator=one_of("squared", "half_batches"))

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim, in the loss's unit squared; refuse half batches of a single sample."""
        if self.form == "half_batches" and min(seen.sizes) < 2:
            raise InputError(
                f"IRM: got domains of {seen.sizes} samples, expected at least 2 in each for half batches; draw more "
                'samples of each domain, or use form="squared"'
            )
        by_scale = (seen.deltas * seen.logits).sum(1).split(list(seen.sizes))
        if self.form == "squared":
            terms = [gradients.mean().square() for gradients in by_scale]
        else:
            terms = [gradients[::2].mean() * gradients[1::2].mean() for gradients in by_scale]
        return torch.stack(terms).mean(), state
