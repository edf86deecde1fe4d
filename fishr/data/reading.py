"""Rows of domains as tensors: those of a tensor at once, those of files by one pool of threads, ahead of their use."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from threading import Barrier

import torch
from attrs import frozen
from torch import Tensor

from fishr.data.domains import Domain, LazyInputs

BLOCK = 64
CPU = torch.device("cpu")
_CHUNK_BYTES = 1 << 22
_ROWS_A_TASK = 8


@frozen(eq=False)
class Reading:
    """Inputs that threads are making.

    Args:
        tasks: of the rows, in their order.
        together: from what the tasks return to the inputs.
    """

    tasks: tuple[Future[Tensor], ...]
    together: Callable[[list[Tensor]], Tensor]

    def result(self) -> Tensor:
        """Inputs [n, ...] on their device, once all are made.

        Raises:
            InputError: one cannot be read.
        """
        return self.together([task.result() for task in self.tasks])


def begin_reading(
    inputs: LazyInputs,
    rows: Sequence[int],
    seeds: Sequence[int] | None = None,
    device: torch.device = CPU,
    out: Tensor | None = None,
) -> Reading:
    """Hand rows to the pool of threads that all domains share; it has as many threads as torch computes with.

    Args:
        inputs: where from.
        rows: which, at least one.
        seeds: of their augmentation; None: to be evaluated.
        device: where to. For a CPU the threads finish them too, each a few images at a time, which its cache holds; to
            a CUDA device they copy beside what it computes, from pinned memory.
        out: [n, ...] on a CPU, where the inputs are to lie; None: a new tensor.

    Returns:
        What will be the inputs.
    """
    if device.type == "cpu":
        made = torch.empty(len(rows), *inputs.shape[1:], dtype=inputs.dtype) if out is None else out
        return Reading(_in_tasks(_make, inputs, rows, seeds, made), lambda _: made)
    tasks = _in_tasks(partial(_copy, device), inputs, rows, seeds)

    def together(parts: list[Tensor]) -> Tensor:
        if device.type == "cuda":
            here = torch.cuda.current_stream(device)
            here.wait_stream(_copying(device))
            for part in parts:
                part.record_stream(here)
        return inputs.finish(torch.cat(parts), rows, seeds)

    return Reading(tasks, together)


def unfinished(inputs: LazyInputs, rows: Sequence[int]) -> Tensor:
    """What is read of rows to be evaluated, as it is before it is finished: [n, ...] on the CPU.

    Raises:
        InputError: one cannot be read.
    """
    tasks = _in_tasks(lambda inputs, some, _: inputs.read(some), inputs, rows, None)
    return torch.cat([task.result() for task in tasks])


def chunks(domain: Domain, most: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """A domain's rows from one on, in pieces that fit a forward pass; files of the next are read meanwhile.

    Args:
        domain: n rows.
        most: rows of a piece at most; large inputs come in fewer, of which it is a multiple of 64 unless ``most`` is
            less than that.
        start: the first row.

    Yields:
        Inputs and labels on the labels' device, never augmented unless the inputs always are.

    Example:
        >>> domain = Domain("photo", torch.zeros(5, 3), torch.tensor([0, 1, 0, 1, 1]))
        >>> [labels.tolist() for _, labels in chunks(domain, most=2, start=1)]
        [[1, 0], [1, 1]]
    """
    rows, inputs, labels = min(most, _rows_in(domain)), domain.inputs, domain.labels
    pieces = [range(first, min(first + rows, len(labels))) for first in range(start, len(labels), rows)]
    if isinstance(inputs, Tensor):
        for piece in pieces:
            # A copy, because a featurizer may work in place.
            yield inputs[piece.start : piece.stop].clone(), labels[piece.start : piece.stop]
        return
    ahead = deque[Reading]()
    for index, piece in enumerate(pieces):
        while len(ahead) < 2 and index + len(ahead) < len(pieces):
            ahead.append(begin_reading(inputs, pieces[index + len(ahead)], device=labels.device))
        yield ahead.popleft().result(), labels[piece.start : piece.stop]


def tensor_of(inputs: Tensor | LazyInputs, rows: Sequence[int] | None = None) -> Tensor:
    """Inputs in one tensor: those of a tensor where it lies, those of files on the CPU.

    Args:
        inputs: N of them.
        rows: which; None: all.

    Returns:
        [n, ...].

    Example:
        >>> tensor_of(torch.eye(3), [2])
        tensor([[0., 0., 1.]])
    """
    if isinstance(inputs, Tensor):
        return inputs if rows is None else inputs[torch.as_tensor(rows, device=inputs.device)]
    return begin_reading(inputs, range(len(inputs)) if rows is None else rows).result()


def _rows_in(domain: Domain) -> int:
    width = domain.inputs.shape[1:].numel() * domain.inputs.dtype.itemsize
    return max(BLOCK, _CHUNK_BYTES // width // BLOCK * BLOCK)


def _in_tasks(
    work: Callable[..., Tensor], inputs: LazyInputs, rows: Sequence[int], seeds: Sequence[int] | None, *outs: Tensor
) -> tuple[Future[Tensor], ...]:
    """A few rows a task, with their seeds and their part of each out."""
    tasks = list[Future[Tensor]]()
    for start in range(0, len(rows), _ROWS_A_TASK):
        some = slice(start, start + _ROWS_A_TASK)
        own = None if seeds is None else seeds[some]
        tasks.append(_pool().submit(work, inputs, rows[some], own, *(out[some] for out in outs)))
    return tuple(tasks)


def _make(inputs: LazyInputs, rows: Sequence[int], seeds: Sequence[int] | None, out: Tensor) -> Tensor:
    return inputs.finish(inputs.read(rows, seeds), rows, seeds, out)


def _copy(device: torch.device, inputs: LazyInputs, rows: Sequence[int], seeds: Sequence[int] | None) -> Tensor:
    beside: AbstractContextManager[object] = nullcontext()
    if device.type == "cuda":
        beside = torch.cuda.stream(_copying(device))
    with beside:
        read = inputs.read(rows, seeds)
        if device.type == "cuda" and read.device.type == "cpu":
            return read.pin_memory().to(device, non_blocking=True)
        return read.to(device)


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _compute_alone() -> None:
    # A thread takes the process's number when it is first asked for it, also over one that was set before.
    torch.get_num_threads()
    torch.set_num_threads(1)


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads of which each computes by itself: teams of their own would fight for the same processors."""
    count = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "fishr-reading", initializer=_compute_alone)
    begun = Barrier(count)
    for task in [pool.submit(begun.wait) for _ in range(count)]:
        task.result()
    # What a thread sets for itself is also what threads that begin later find.
    torch.set_num_threads(count)
    return pool
