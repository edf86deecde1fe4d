"""Draws that do not depend on what was drawn before, and leave no trace."""

import hashlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

_FUNCTIONS = (
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli"),
    *("multinomial", "poisson", "binomial", "_standard_gamma", "_sample_dirichlet"),
)
_METHODS = (
    *("random_", "uniform_", "normal_", "log_normal_", "cauchy_", "exponential_", "geometric_", "bernoulli_"),
    *("bernoulli", "multinomial"),
)


@contextmanager
def seeded(seed: int, device: torch.device) -> Generator[None]:
    """Seed torch's global generators for a device; restore them afterwards. Draws on the CPU are always seeded."""
    cuda, mps = device.type == "cuda", device.type == "mps"
    before = torch.mps.get_rng_state() if mps else None
    try:
        with torch.random.fork_rng([device] if cuda else [], device_type="cuda"):
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            elif mps:
                torch.mps.manual_seed(seed)
            yield
    finally:
        if before is not None:
            torch.mps.set_rng_state(before)


class SeededDraws(TorchFunctionMode):
    """Draw in this thread, where no generator is named, what follows ``torch.manual_seed(seed)``."""

    # The global generator, which all threads share, is neither read nor changed.
    _draws = frozenset[Any](
        {*(getattr(torch, name) for name in _FUNCTIONS), *(getattr(torch.Tensor, name) for name in _METHODS)}
    )

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        own = {"generator": self._generator} if func in self._draws else {}
        return func(*args, **{**own, **(kwargs or {})})


def named_generator(seed: int, name: str) -> torch.Generator:
    """Return a generator on the CPU whose draws depend on a seed and a name alone."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def numbered_generator(seed: int, stream: int) -> torch.Generator:
    """Return the generator on the CPU of one of a seed's independent streams."""
    words = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
