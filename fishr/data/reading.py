"""Rows of domains as tensors: those of a tensor at once, those of files by one pool of threads, ahead of their use."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from attrs import frozen
from torch import Tensor

from fishr.data.domains import Domain
from fishr.data.inputs import LazyInputs

BLOCK = 64
CPU = torch.device("cpu")
_CHUNK_BYTES = 1 << 22
_ROWS_A_TASK = 8


@frozen(eq=False)
class Reading:
    """Inputs that threads are reading.

    Args:
        inputs: where from.
        rows: which.
        seeds: of their augmentation; None: to be evaluated.
        device: of the inputs.
        parts: what is read of the rows, in their order, on the device.
    """

    inputs: LazyInputs
    rows: Sequence[int]
    seeds: Sequence[int] | None
    device: torch.device
    parts: tuple[Future[Tensor], ...]

    def result(self) -> Tensor:
        """Inputs [n, ...] on the device, once all are read.

        Raises:
            InputError: one cannot be read.
        """
        return self.inputs.finish(self.unfinished(), self.rows, self.seeds)

    def unfinished(self) -> Tensor:
        """What is read of them, [n, ...] on the device.

        Raises:
            InputError: one cannot be read.
        """
        parts = [part.result() for part in self.parts]
        if self.device.type == "cuda":
            here = torch.cuda.current_stream(self.device)
            here.wait_stream(_copying(self.device))
            for part in parts:
                part.record_stream(here)
        return torch.cat(parts)


def begin_reading(
    inputs: LazyInputs, rows: Sequence[int], seeds: Sequence[int] | None = None, device: torch.device = CPU
) -> Reading:
    """Hand rows to the pool of threads that all domains share; it has as many threads as torch computes with.

    Args:
        inputs: where from.
        rows: which, at least one.
        seeds: of their augmentation; None: to be evaluated.
        device: where to; the threads copy to a CUDA device beside what it computes, from pinned memory.

    Returns:
        What will be the inputs.
    """
    starts = range(0, len(rows), _ROWS_A_TASK)
    stops = [start + _ROWS_A_TASK for start in starts]
    tasks = [
        _pool().submit(_read, inputs, rows[start:stop], None if seeds is None else seeds[start:stop], device)
        for start, stop in zip(starts, stops, strict=True)
    ]
    return Reading(inputs, rows, seeds, device, tuple(tasks))


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
            yield inputs[piece.start : piece.stop], labels[piece.start : piece.stop]
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


def _read(inputs: LazyInputs, rows: Sequence[int], seeds: Sequence[int] | None, device: torch.device) -> Tensor:
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


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=torch.get_num_threads(), thread_name_prefix="fishr-reading")
