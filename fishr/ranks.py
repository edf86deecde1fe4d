"""Processes that train together, and the sums over all of them that gradients go through.

What is differentiated is the sum of the ranks' objectives. Each rank has the same one, so averaging the parameters'
gradients over the ranks, as ``DistributedDataParallel`` does, gives those of one process.
"""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from attrs import frozen
from torch import Tensor

from fishr.errors import InputError, RunFailed

Rows = TypeVar("Rows", bound=Sequence[Any] | Tensor)


class RankLost(RunFailed):
    """Another process of the run is gone, or does not answer."""


@frozen(eq=False)
class Ranks:
    """The processes that share each batch, as one of them sees them.

    Args:
        number: this process's, from 0.
        count: R, how many there are.
        group: through which they talk; None: torch's default group, or no other process.

    Raises:
        InputError: a number that is none of theirs.

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
        """Those of a process group that was begun; None: torch's default group.

        Raises:
            InputError: no group was begun.
        """
        if not dist.is_initialized():
            raise InputError("ranks: no process group was begun; call torch.distributed.init_process_group first")
        return cls(dist.get_rank(group), dist.get_world_size(group), group)

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    def share(self, rows: Rows) -> Rows:
        """This rank's part of rows, consecutive ones: all parts in the order of ranks are the rows.

        Args:
            rows: of one domain, the same on all ranks.
        """
        n = len(rows)
        return rows[n * self.number // self.count : n * (self.number + 1) // self.count]  # pyright: ignore


ALONE = Ranks()


def given_or_alone(ranks: Ranks | None) -> Ranks:
    """The ranks that were given, else this process alone; a warning, once, where a process group has others.

    Example:
        >>> given_or_alone(None).alone
        True
    """
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
    """The sum of all ranks' tensors of one shape, on each of them to the same bits.

    Args:
        tensor: this rank's.
        ranks: who takes part; all of them must call.

    Returns:
        The sum, differentiable any number of times; the backward pass sums the gradients of all ranks likewise.

    Raises:
        RankLost: one of them is gone.

    Example:
        >>> sum_over_ranks(torch.ones(2), ALONE)
        tensor([1., 1.])
    """
    return tensor if ranks.alone else _Sum.apply(tensor, ranks)  # pyright: ignore


def rows_of_ranks(rows: Tensor, ranks: Ranks) -> list[Tensor]:
    """All ranks' rows, in the order of ranks; each may have another number of them.

    Args:
        rows: [n, ...] this rank's.
        ranks: who takes part; all of them must call.

    Returns:
        [n_r, ...] of each rank r, differentiable as ``sum_over_ranks``.

    Raises:
        RankLost: one of them is gone.

    Example:
        >>> rows_of_ranks(torch.ones(2, 1), ALONE)
        [tensor([[1.],
                [1.]])]
    """
    if ranks.alone:
        return [rows]
    counts = [count for (count,) in counts_of_ranks((len(rows),), ranks)]
    start = sum(counts[: ranks.number])
    # A sum of tables that are zero but for the own rows: all that a backward pass needs is then the same sum.
    table = torch.zeros(sum(counts), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    table = table.index_copy(0, torch.arange(start, start + len(rows), device=rows.device), rows)
    return list(sum_over_ranks(table, ranks).split(counts))


def domains_of_ranks(rows: Tensor, sizes: Sequence[Sequence[int]], ranks: Ranks) -> Tensor:
    """All ranks' rows by domain, each domain's in the order of ranks: as one process would have them.

    Args:
        rows: [n, ...] this rank's, ordered by domain.
        sizes: samples of each domain on each rank, as ``counts_of_ranks`` gives them.
        ranks: who takes part; all of them must call.

    Returns:
        [N, ...], differentiable as ``sum_over_ranks``.

    Raises:
        RankLost: one of them is gone.

    Example:
        >>> domains_of_ranks(torch.ones(2, 1), [(1, 1)], ALONE).shape
        torch.Size([2, 1])
    """
    parts = [of_rank.split(list(own)) for of_rank, own in zip(rows_of_ranks(rows, ranks), sizes, strict=True)]
    return torch.cat([part for of_domain in zip(*parts, strict=True) for part in of_domain])


def counts_of_ranks(counts: Sequence[int], ranks: Ranks) -> list[tuple[int, ...]]:
    """Whole numbers of all ranks, in the order of ranks; each has as many.

    Args:
        counts: this rank's, such as the samples of each domain.
        ranks: who takes part; all of them must call.

    Raises:
        RankLost: one of them is gone.

    Example:
        >>> counts_of_ranks((3, 4), ALONE)
        [(3, 4)]
    """
    if ranks.alone:
        return [tuple(counts)]
    table = torch.zeros(ranks.count, len(counts), dtype=torch.int64, device=_device_of(ranks))
    table[ranks.number] = torch.tensor(counts)
    add_over_ranks(table, ranks)
    return [tuple(row) for row in table.tolist()]


def add_over_ranks(tensor: Tensor, ranks: Ranks) -> Tensor:
    """Replace a tensor without a graph by the sum of all ranks' tensors, in place; the same tensor.

    Raises:
        RankLost: one of them is gone.

    Example:
        >>> add_over_ranks(torch.ones(2), ALONE)
        tensor([1., 1.])
    """
    if not ranks.alone:
        with losing_ranks():
            dist.all_reduce(tensor, group=ranks.group)
    return tensor


def mean_over_ranks(tensors: Sequence[Tensor | None], ranks: Ranks) -> tuple[Tensor | None, ...]:
    """The mean of each tensor over all ranks, such as of the parameters' gradients, in one message.

    Args:
        tensors: this rank's, without a graph; None stays, and is None on all ranks.
        ranks: who takes part; all of them must call.

    Raises:
        RankLost: one of them is gone.

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
            # In its own layout, as the weights' memory format has it.
            means[i] = torch.empty_like(tensor).copy_(mean.view(tensor.shape))
    return tuple(means)


@contextmanager
def losing_ranks() -> Generator[None]:
    """Within it, torch's error that a process does not answer becomes ``RankLost``."""
    try:
        yield
    except (dist.DistError, RuntimeError) as error:
        raise RankLost("another process of the run is gone, or does not answer") from error


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return add_over_ranks(tensor.detach().clone(memory_format=torch.contiguous_format), ranks)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return sum_over_ranks(gradients[0], ctx.ranks), None


def _device_of(ranks: Ranks) -> torch.device:
    nccl = dist.get_backend(ranks.group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
