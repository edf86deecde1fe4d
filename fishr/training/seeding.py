"""Seeds of what torch draws by its global generators, which are left as they were."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Generator[None]:
    """Within it random layers draw from a seed; afterwards torch's generators are as they were.

    Args:
        seed: from 0 to 2⁶³ − 1.
        device: where the layers compute; draws on the CPU are seeded always.

    Example:
        >>> with seeded(0, torch.device("cpu")):
        ...     one = torch.rand(1)
        >>> with seeded(0, torch.device("cpu")):
        ...     torch.equal(one, torch.rand(1))
        True
    """
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
