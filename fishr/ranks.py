"""Processes that train together, and differentiable sums over all of them.

The backward pass differentiates the sum of the ranks' objectives. Each rank has the same objective, so averaging the
parameters' gradients over the ranks, as ``DistributedDataParallel`` does, gives those of one process.
"""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from attrs import frozen
from torch import Tensor, nn

from fishr.compilation import traceable
from fishr.errors import InputError, RunFailed

Rows = TypeVar("Rows", bound=Sequence[Any] | Tensor)


class RankLost(RunFailed):
    """Another process of the run is gone, or does not answer."""


@traceable
@frozen(eq=False)
class Ranks:
    """The processes that share each batch, and which of them this one is.

    Args:
        number: rank of this process, from 0.
        count: R, the number of processes.
        group: their process group; None: torch's default group, or no other process.

    Raises:
        InputError: a number outside 0 to count - 1.

    Example:
        >>> Ranks(number=1, count=2).share(range(5)), Ranks().share(range(5))
        (range(2, 5), range(0, 5))
    """

    number: int = 0
    count: int = 1
    group: dist.ProcessGroup | None = None

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise InputError(f"ranks: got number {self.number} of {self.count}, expected 0 to {self.count - 1}")

    @classmethod
    def of(cls, group: dist.ProcessGroup | None = None) -> "Ranks":
        """Return the ranks of an initialized process group; None: torch's default group.

        Raises:
            InputError: no group is initialized.
        """
        if not dist.is_initialized():
            raise InputError("ranks: no process group is initialized; call torch.distributed.init_process_group first")
        return cls(dist.get_rank(group), dist.get_world_size(group), group)

    @property
    def alone(self) -> bool:
        """True if this is the only process."""
        return self.count == 1

    def share(self, rows: Rows) -> Rows:
        """Return this rank's consecutive part of one domain's rows, which are the same on all ranks."""
        n = len(rows)
        return rows[n * self.number // self.count : n * (self.number + 1) // self.count]  # pyright: ignore


ALONE = Ranks()


def given_or_alone(ranks: Ranks | None) -> Ranks:
    """Return the given ranks, else this process alone, with one warning if a process group has others."""
    if ranks is None and dist.is_initialized() and dist.get_world_size() > 1:
        _warn_of_others(dist.get_world_size())
    return ranks or ALONE


@cache
def _warn_of_others(count: int) -> None:
    warnings.warn(
        f"observe: got no ranks in a process group of {count}, so that each process computes the statistics and "
        "penalties of its own samples, each another value; pass ranks=fishr.Ranks.of(), or ranks=fishr.Ranks() if that "
        "is intended",
        # The caller of observe.
        stacklevel=4,
    )


def sum_over_ranks(tensor: Tensor, ranks: Ranks) -> Tensor:
    """Return the sum of all ranks' tensors of one shape, with identical bits on each rank.

    Returns:
        The sum, differentiable any number of times; the backward pass sums the gradients of all ranks.

    Raises:
        RankLost: another rank is gone.

    Example:
        >>> sum_over_ranks(torch.ones(2), ALONE)
        tensor([1., 1.])
    """
    return tensor if ranks.alone else _Sum.apply(tensor, ranks)  # pyright: ignore


def domains_of_ranks(rows: Tensor, sizes: Sequence[Sequence[int]], ranks: Ranks) -> Tensor:
    """Return all ranks' rows [N, ...] by domain, in the order of ranks, differentiable as ``sum_over_ranks``."""
    counts = [sum(own) for own in sizes]
    start = sum(counts[: ranks.number])
    # All-gather as an all-reduce of zero-padded tensors, so that the backward pass is the same collective.
    table = torch.zeros(sum(counts), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    table = table.index_copy(0, torch.arange(start, start + len(rows), device=rows.device), rows)
    of_ranks = sum_over_ranks(table, ranks).split(counts)
    parts = [of_rank.split(list(own)) for of_rank, own in zip(of_ranks, sizes, strict=True)]
    return torch.cat([part for of_domain in zip(*parts, strict=True) for part in of_domain])


def counts_of_ranks(counts: Sequence[int], ranks: Ranks) -> list[tuple[int, ...]]:
    """Return every rank's whole numbers, such as its samples of each domain, in the order of ranks."""
    if ranks.alone:
        return [tuple(counts)]
    table = torch.zeros(ranks.count, len(counts), dtype=torch.int64, device=_device_of(ranks))
    table[ranks.number] = torch.tensor(counts)
    add_over_ranks(table, ranks)
    return [tuple(row) for row in table.tolist()]


def add_over_ranks(tensor: Tensor, ranks: Ranks) -> Tensor:
    """Replace a tensor without a graph by the sum of all ranks' tensors, in place, and return it."""
    if not ranks.alone:
        with losing_ranks():
            dist.all_reduce(tensor, group=ranks.group)
    return tensor


def mean_over_ranks(tensors: Sequence[Tensor | None], ranks: Ranks) -> tuple[Tensor | None, ...]:
    """Return the mean of each tensor over all ranks, such as of the parameters' gradients, in one message.

    Args:
        tensors: this rank's, without a graph; None stays None, on all ranks.

    Raises:
        RankLost: another rank is gone.

    Example:
        >>> mean_over_ranks((torch.ones(2), None), ALONE)
        (tensor([1., 1.]), None)
    """
    if ranks.alone:
        return tuple(tensors)
    means = list(tensors)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors if tensor is not None):
        given = {i: tensor for i, tensor in enumerate(tensors) if tensor is not None and tensor.dtype == dtype}
        flat = torch.cat([tensor.flatten() for tensor in given.values()])
        add_over_ranks(flat, ranks).div_(ranks.count)
        parts = flat.split([tensor.numel() for tensor in given.values()])
        for (i, tensor), mean in zip(given.items(), parts, strict=True):
            # In the tensor's own memory format.
            means[i] = torch.empty_like(tensor).copy_(mean.view(tensor.shape))
    return tuple(means)


def average_gradients(module: nn.Module, ranks: Ranks) -> None:
    """Replace the gradients of a module's parameters by their means over all ranks, in place.

    Raises:
        RankLost: another rank is gone.

    Example:
        >>> head = nn.Linear(2, 1)
        >>> head(torch.ones(1, 2)).sum().backward()
        >>> average_gradients(head, ALONE)
        >>> head.weight.grad
        tensor([[1., 1.]])
    """
    parameters = list(module.parameters())
    means = mean_over_ranks([parameter.grad for parameter in parameters], ranks)
    for parameter, mean in zip(parameters, means, strict=True):
        parameter.grad = mean


@contextmanager
def losing_ranks() -> Generator[None]:
    """Turn torch's error that a process does not answer into ``RankLost``."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        raise RankLost("another process of the run is gone, or does not answer") from error


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(tensor: Tensor, ranks: Ranks) -> Tensor:
        return add_over_ranks(tensor.detach().clone(memory_format=torch.contiguous_format), ranks)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Ranks], output: Tensor) -> None:
        ctx.ranks = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return sum_over_ranks(gradients[0], ctx.ranks), None


def _device_of(ranks: Ranks) -> torch.device:
    nccl = dist.get_backend(ranks.group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
