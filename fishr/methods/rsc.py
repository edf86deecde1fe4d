"""RSC: a risk of features without those that the prediction depends on most."""

from typing import Any, ClassVar

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.losses import per_sample_losses
from fishr.methods.method import Method, head_logits, require_classes
from fishr.methods.ranges import Range, uniform
from fishr.observation import Observation
from fishr.penalties.penalty import Memoryless
from fishr.training.objective import Objective


@frozen
class RSC(Memoryless):
    """Mean loss of head(m ∘ z), with masks m that are 0 at the largest gradients of the label's logit; a risk.

    A feature of a sample is masked if its gradient ∂f_y/∂z is not below the (1 − f)-quantile of that sample's. A
    sample whose label's probability falls by less than the (1 − b)-quantile of all samples keeps all its features.
    Masks carry no gradient. All samples of the batch count alike.

    Args:
        features: f, the share of features that are masked.
        samples: b, the share of samples that are.

    Raises:
        InputError: a share outside 0 to 1; when called, labels that are no class indices.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> head = torch.nn.Linear(2, 2, bias=False)
        >>> head.weight.data = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
        >>> batch = DomainBatch(torch.ones(1, 2), torch.tensor([0]), sizes=(1,))
        >>> value, _ = RSC(0.5, 0.5)(observe(torch.nn.Identity(), head, batch), (), 0)  # of logits 0 and 3
        >>> round(value.item(), 4)
        3.0486

    Source:
        Huang et al. 2020 (arXiv 2007.02454).
    """

    features: float = field(default=1 / 3, validator=number(below=1.0))
    samples: float = field(default=1 / 3, validator=number(below=1.0))
    per_head: ClassVar[tuple[str, ...]] = ("features", "samples")

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the risk, 0-dim, in the loss's unit."""
        require_classes(seen, "RSC")
        whole, labels = seen.features.detach(), seen.labels.unsqueeze(1)
        # Under vmap the shares are tensors.
        of_features, of_samples = (
            torch.as_tensor(1 - share, dtype=whole.dtype, device=whole.device)
            for share in (self.features, self.samples)
        )

        def of_labels(features: Tensor) -> tuple[Tensor, Tensor]:
            logits = head_logits(seen, features)
            return logits.gather(1, labels).sum(), logits

        differentiate: Any = torch.func.grad(of_labels, has_aux=True)
        with torch.no_grad():
            by_features, logits = differentiate(whole)
            slopes = by_features.flatten(1)
            kept = slopes < quantile(slopes, of_features)
            masked = head_logits(seen, whole * kept.view_as(whole))
            fall = (logits.softmax(1) - masked.softmax(1)).gather(1, labels).squeeze(1)
            kept = kept | (fall < quantile(fall, of_samples)).unsqueeze(1)
        logits = head_logits(seen, seen.features * kept.view_as(whole))
        return per_sample_losses(seen.loss, logits, seen.labels).mean(), state


# An operator, because the selection on a CPU reads the shares, which tensors under vmap do not let it.
@torch.library.custom_op("fishr::quantile", mutates_args=())
def quantile(values: Tensor, share: Tensor) -> Tensor:
    """Return the quantile over the last axis, [..., 1], as ``torch.quantile``; shares may differ along the first."""
    if share.ndim and not values.is_cuda:
        return torch.stack([*map(quantile, values, share)])
    place = (share * (values.shape[-1] - 1)).view(-1, *[1] * (values.ndim - 1))
    below, above = place.floor().long(), place.ceil().long()
    pair = by_sort(values, below, above) if values.is_cuda else by_selection(values, int(below), int(above))
    return torch.lerp(*pair, place - below)


def by_sort(values: Tensor, below: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values at two places in order of size."""
    ordered = values.sort(-1).values
    return ordered.take_along_dim(below, -1), ordered.take_along_dim(above, -1)


def by_selection(values: Tensor, below: int, above: int) -> tuple[Tensor, Tensor]:
    """Return the same at neighboring places, on a CPU in a fifth of the time of a sort."""
    largest = values.topk(values.shape[-1] - below, sorted=False).values
    least = largest.topk(1 + above - below, largest=False).values
    return least[..., :1], least[..., -1:]


@quantile.register_fake
def _(values: Tensor, share: Tensor) -> Tensor:
    return values.new_empty(*values.shape[:-1], 1)


@quantile.register_vmap
def _(info: Any, in_dims: tuple[int, int | None], values: Tensor, share: Tensor) -> tuple[Tensor, int]:
    share = share.expand(info.batch_size) if in_dims[1] is None else share
    return quantile(values.movedim(in_dims[0], 0), share), 0


METHODS = {
    "RSC": Method(
        {
            "rsc_f_drop_factor": Range(1 / 3, uniform(0, 0.5)),
            "rsc_b_drop_factor": Range(1 / 3, uniform(0, 0.5)),
        },
        lambda h: Objective(risk=RSC(h["rsc_f_drop_factor"], h["rsc_b_drop_factor"])),
    )
}
