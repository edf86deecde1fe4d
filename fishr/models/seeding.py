"""First weights that modules of torch draw themselves, from an explicit generator all the same."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def seeded_by(generator: torch.Generator) -> Generator[None]:
    """Let what is built in the context draw from a seed of the generator; afterwards torch's generators are as before.

    The generator moves on by one draw, however much is built. Modules are built on the CPU, so that their weights
    do not depend on the default device.

    Args:
        generator: the only source of randomness.

    Example:
        >>> with seeded_by(torch.Generator().manual_seed(0)):
        ...     first = torch.nn.Linear(3, 2)
        >>> with seeded_by(torch.Generator().manual_seed(0)):
        ...     torch.equal(first.weight, torch.nn.Linear(3, 2).weight)
        True
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the accelerators' generators, which nobody restores.
        torch.default_generator.manual_seed(seed)
        yield
