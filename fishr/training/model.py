"""The featurizer and head of a run: a workspace that takes its numbers from a training state."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from attrs import frozen
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.models.weight_files import misfits


@frozen(eq=False)
class Model:
    """A featurizer and a head, built once and reused by every step.

    The modules hold no state between steps: ``place`` puts a state's numbers into them. They are built in train mode,
    and each decides on its own mode.
    """

    featurizer: nn.Module  # [N, ...] to features [N, F]
    head: nn.Module  # features to logits [N, C]
    compiled: Callable[[Tensor], Tensor] | None = None  # the featurizer for training steps, where it is compiled
    outputs: int = 0  # C of the logits; 0: not known
    features: int = 0  # F; 0: not known

    def both(self) -> nn.ModuleDict:
        """Return featurizer and head as one module; a parameter shared between them counts once."""
        return nn.ModuleDict({"featurizer": self.featurizer, "head": self.head})

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return parameters by name, the featurizer's as "featurizer.…" and the head's as "head.…"."""
        return dict(self.both().named_parameters())

    def buffers(self) -> dict[str, Tensor]:
        """Return buffers by name, as the parameters."""
        return dict(self.both().named_buffers())


def place(model: Model, parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
    """Point the modules' parameters at given tensors by name, and set their buffers to copies.

    Forward passes write into buffers only, so that no given tensor changes.

    Raises:
        InputError: the names or shapes are not the model's.

    Example:
        >>> import torch
        >>> model, weight = Model(nn.Flatten(), nn.Linear(2, 1, bias=False)), torch.ones(1, 2)
        >>> place(model, {"head.weight": weight}, {})
        >>> model.head(torch.ones(1, 2)), model.head.weight.data_ptr() == weight.data_ptr()
        (tensor([[2.]], grad_fn=<MmBackward0>), True)
    """
    own_parameters, own_buffers = model.parameters(), model.buffers()
    _check_fit(own_parameters, parameters, "parameter")
    _check_fit(own_buffers, buffers, "buffer")
    for name, parameter in own_parameters.items():
        parameter.data = parameters[name]
    for name, buffer in own_buffers.items():
        buffer.data = buffers[name].clone()


@contextmanager
def evaluating(model: Model) -> Generator[None]:
    """Put the modules in eval mode within the context; restore the mode of each afterwards."""
    modes = [(module, module.training) for part in (model.featurizer, model.head) for module in part.modules()]
    try:
        model.featurizer.eval()
        model.head.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def _check_fit(own: "dict[str, nn.Parameter] | dict[str, Tensor]", given: dict[str, Tensor], kind: str) -> None:
    for name, got, expected in misfits(own, given):
        raise InputError(
            f"{kind} {name}: got shape {got} in the state, expected {expected} as in the model; "
            "use the state with the experiment that made it"
        )
