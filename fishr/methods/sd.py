"""SD: spectral decoupling, a penalty on the logits."""

from attrs import frozen
from torch import Tensor

from fishr.methods.method import Method
from fishr.methods.ranges import Range, power
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.penalty import Memoryless
from fishr.training.objective import Objective


@frozen
class SD(Memoryless):
    """(1/NC) Σ_n Σ_c f_nc², the mean square of the logits of all samples.

    Example:
        >>> import torch
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.tensor([[3.0, 1.0]]), torch.tensor([0]), sizes=(1,))
        >>> SD()(observe(torch.nn.Identity(), torch.nn.Identity(), batch), (), 0)[0]
        tensor(5.)

    Source:
        Pezeshki et al. 2021 (arXiv 2011.09468); DomainBed's form, without the factor 1/2 and with a mean over classes.
    """

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim, in logits squared."""
        return seen.logits.square().mean(), state


METHODS = {
    "SD": Method(
        {"sd_reg": Range(0.1, power(-5, -1))},
        lambda h: Objective(penalty=Total(sd=Scaled(SD(), h["sd_reg"]))),
    )
}
