"""The record of all environments of a benchmark, before any of them is chosen for testing."""

from attrs import frozen

from fishr.data.domains import Domain


@frozen(eq=False)
class Environments:
    """All environments of a data set, in the order of their indices.

    Args:
        domains: each named as people call it.
        classes: C, at least 2.

    Example:
        >>> import torch
        >>> photo = Domain("photo", torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> Environments((photo,), classes=2).domains[0].name
        'photo'
    """

    domains: tuple[Domain, ...]
    classes: int
