"""A penalty with its state as a module, for frameworks that save modules."""

import io
from typing import Any

import torch
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.observation import Observation
from fishr.penalties.penalty import Penalty, check_penalty, problem_of, value_and_state
from fishr.penalties.saved_state import load_state, state_dict
from fishr.row_checks import kind
from fishr.tensor_trees import to_device


class PenaltyModule(nn.Module):
    """A penalty, its state and its step as one module, for frameworks that save and load modules.

    A call returns the penalty's value of an observation and keeps the next state. The penalty's step is the number of
    calls before. The first call makes the state; each call moves it to the device of the observation. ``state_dict``
    has step and state in one tensor of bytes, ``_extra_state``, so that any file of a model holds them, safetensors
    too; ``torch.distributed.checkpoint``, which wants to know its size, takes ``fishr.state_dict(module.state)``
    instead. There are no parameters.

    Args:
        penalty: any penalty.
        seed: of the first values of a penalty that trains parameters of its own; the same on all ranks.

    Raises:
        InputError: No penalty. When called: no observation, or, first after ``load_state_dict``, a state that does not
            fit the penalty, the head or the number of domains, see ``load_state``.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.penalties.fishr import Fishr
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1]), sizes=(2, 4))
        >>> matched, again = PenaltyModule(Fishr(ema=0.9)), PenaltyModule(Fishr(ema=0.9))
        >>> value = matched(observe(nn.Identity(), nn.Linear(4, 2), batch))
        >>> again.load_state_dict(matched.state_dict())
        <All keys matched successfully>
        >>> again.step
        1
    """

    def __init__(self, penalty: Penalty, seed: int = 0) -> None:
        super().__init__()
        check_penalty("penalty", penalty)
        self.penalty, self.seed, self.step = penalty, seed, 0
        self.state: Any = None
        self._saved: dict[str, Any] | None = None  # until the first call knows what it has to fit

    def forward(self, seen: Observation) -> Tensor:
        """Return the value of the penalty, 0-dim."""
        _check_observation(seen)
        if self.state is None:
            problem = problem_of(seen, self.seed)
            saved = self._saved
            self.state = self.penalty.init(problem) if saved is None else load_state(self.penalty, problem, saved)
            self._saved = None
        state = to_device(self.state, seen.labels.device)
        value, self.state = value_and_state(self.penalty, self.penalty(seen, state, self.step))
        self.step += 1
        return value

    def get_extra_state(self) -> Tensor:
        """Return step and state for ``state_dict``, as the bytes of a file."""
        file = io.BytesIO()
        torch.save({"step": self.step, "state": self._saved if self.state is None else state_dict(self.state)}, file)
        return torch.frombuffer(file.getbuffer(), dtype=torch.uint8).clone()

    def set_extra_state(self, state: Tensor) -> None:
        """Take step and state from ``load_state_dict``."""
        saved = torch.load(io.BytesIO(state.cpu().numpy().tobytes()), weights_only=True)
        self.step, self._saved, self.state = saved["step"], saved["state"], None


def _check_observation(value: object) -> None:
    if not isinstance(value, Observation):
        raise InputError(
            f"penalty module: got {kind(value)}, expected an observation; call it with fishr.observe(featurizer, head, "
            "batch)"
        )
