"""Samples of domains as tensors: indexed from a tensor, or read from files ahead of use by one pool of threads."""

import sys
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
_SWITCH_SECONDS = 0.001


@frozen(eq=False)
class Reading:
    """Inputs in the making: tasks of the pool, and a function that joins their results."""

    tasks: tuple[Future[Tensor], ...]
    join: Callable[[list[Tensor]], Tensor]

    def result(self) -> Tensor:
        """Return the inputs [n, ...] on their device, once all are read."""
        return self.join([task.result() for task in self.tasks])


def begin_reading(
    inputs: LazyInputs,
    rows: Sequence[int],
    seeds: Sequence[int] | None = None,
    device: torch.device = CPU,
    out: Tensor | None = None,
) -> Reading:
    """Begin to read rows, at least one, in the shared pool of threads; into ``out`` [n, ...] on a CPU."""
    # CPU threads also finish a few inputs at a time, which stay in their caches; for CUDA they copy from pinned memory.
    if device.type == "cpu":
        made = torch.empty(len(rows), *inputs.shape[1:], dtype=inputs.dtype) if out is None else out
        return Reading(_in_tasks(_make, inputs, rows, seeds, made), lambda _: made)

    def join(parts: list[Tensor]) -> Tensor:
        if device.type == "cuda":
            here = torch.cuda.current_stream(device)
            here.wait_stream(_copying(device))
            for part in parts:
                part.record_stream(here)
        return inputs.finish(torch.cat(parts), rows, seeds)

    return Reading(_in_tasks(partial(_copy, device), inputs, rows, seeds), join)


def unfinished(inputs: LazyInputs, rows: Sequence[int]) -> Tensor:
    """Return what is read of rows for evaluation, before it is finished: [n, ...] on the CPU."""
    return torch.cat([task.result() for task in _in_tasks(lambda of, some, _: of.read(some), inputs, rows, None)])


def chunks(domain: Domain, most: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and labels of a domain, at most ``most`` rows at a time, while the next files are read."""
    width = domain.inputs.shape[1:].numel() * domain.inputs.dtype.itemsize
    rows = min(most, max(BLOCK, _CHUNK_BYTES // width // BLOCK * BLOCK))
    inputs, labels, ahead = domain.inputs, domain.labels, deque[Reading]()
    spans = [range(first, min(first + rows, len(labels))) for first in range(start, len(labels), rows)]
    for index, span in enumerate(spans):
        if isinstance(inputs, Tensor):
            # A copy, because a featurizer may work in place.
            yield inputs[span.start : span.stop].clone(), labels[span.start : span.stop]
            continue
        while len(ahead) < 2 and index + len(ahead) < len(spans):
            ahead.append(begin_reading(inputs, spans[index + len(ahead)], device=labels.device))
        yield ahead.popleft().result(), labels[span.start : span.stop]


def tensor_of(inputs: Tensor | LazyInputs, rows: Sequence[int] | None = None) -> Tensor:
    """Return inputs, or some rows, in one tensor [n, ...]: of a tensor on its device, of files on the CPU."""
    if isinstance(inputs, Tensor):
        return inputs if rows is None else inputs[torch.as_tensor(rows, device=inputs.device)]
    return begin_reading(inputs, range(len(inputs)) if rows is None else rows).result()


def _in_tasks(
    work: Callable[..., Tensor], inputs: LazyInputs, rows: Sequence[int], seeds: Sequence[int] | None, *outs: Tensor
) -> tuple[Future[Tensor], ...]:
    """Submit a few rows a task, with their seeds and their part of each output buffer."""
    tasks = list[Future[Tensor]]()
    for start in range(0, len(rows), _ROWS_A_TASK):
        some = slice(start, start + _ROWS_A_TASK)
        own = None if seeds is None else seeds[some]
        tasks.append(_pool().submit(work, inputs, rows[some], own, *(out[some] for out in outs)))
    return tuple(tasks)


@torch.inference_mode()
def _make(inputs: LazyInputs, rows: Sequence[int], seeds: Sequence[int] | None, out: Tensor) -> Tensor:
    return inputs.finish(inputs.read(rows, seeds), rows, seeds, out)


def _copy(device: torch.device, inputs: LazyInputs, rows: Sequence[int], seeds: Sequence[int] | None) -> Tensor:
    stream: AbstractContextManager[object] = nullcontext()
    if device.type == "cuda":
        stream = torch.cuda.stream(_copying(device))
    with stream:
        read = inputs.read(rows, seeds)
        if device.type == "cuda" and read.device.type == "cpu":
            return read.pin_memory().to(device, non_blocking=True)
        return read.to(device)


@cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _compute_alone() -> None:
    # A thread takes over the process's number when it first asks for it, even if it set its own before.
    torch.get_num_threads()
    torch.set_num_threads(1)


@cache
def _pool() -> ThreadPoolExecutor:
    """Create threads that each compute alone; teams of their own would compete for the same processors."""
    count = torch.get_num_threads()
    # A call of torch lets another thread run Python, and often takes its turn back before that thread is awake. The
    # thread gets its turn for sure once it has waited for this interval of the interpreter, 5 ms by default.
    sys.setswitchinterval(min(_SWITCH_SECONDS, sys.getswitchinterval()))
    pool = ThreadPoolExecutor(count, "fishr-reading", initializer=_compute_alone)
    started = Barrier(count)
    for task in [pool.submit(started.wait) for _ in range(count)]:
        task.result()
    # A thread's number is also taken over by threads that start later.
    torch.set_num_threads(count)
    return pool
