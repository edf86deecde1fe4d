"""Processes that ``torchrun`` began as one run: how they meet, agree and hear that one of them is gone."""

import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from fishr.errors import InputError
from fishr.paths import access_message
from fishr.ranks import ALONE, RankLost, Ranks, losing_ranks
from fishr.training.compute import resolve_device

Value = TypeVar("Value")
_LAST_TENSORS = 0.2


class Refused(InputError):
    """What one rank cannot use, on all ranks: the first of them says it for all."""


@contextmanager
def joined(device: str) -> Generator[tuple[Ranks, str]]:
    """The ranks of this process, begun as ``torchrun`` says in the environment, and the device of this one.

    Within it, the launcher's request to end (SIGTERM), which follows the death of a rank, is a ``RankLost``; after that
    the process is left the time to say so.

    Args:
        device: as for ``resolve_device``; "cuda", and "auto" where there is a GPU, are each rank's own GPU.

    Yields:
        All ranks and the device's name; ``ALONE`` and the given one for a process that no launcher began.

    Raises:
        InputError: a device that is absent.

    Example:
        >>> with joined("cpu") as (ranks, device):
        ...     ranks.alone, device
        (True, 'cpu')
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield ALONE, device
        return
    where = resolve_device(device)
    if where.type == "cuda":
        # Named by number, a GPU would be that of all the machine's ranks.
        where = resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(where)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with losing_ranks():
            dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
        yield Ranks.of(), str(where)
    except RankLost:
        # What is left of the group cannot be taken leave of, and the process is about to end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    except BaseException:
        _leave(before)
        raise
    _leave(before)


def _leave(before: Any) -> None:
    signal.signal(signal.SIGTERM, before)
    if dist.is_initialized():
        # Where something else holds the group too, as torch's compiler does, gloo's threads outlive it. They drop their
        # last tensors with Python's lock, which an interpreter that ends gives to nobody: the process would abort with
        # all its work done.
        time.sleep(_LAST_TENSORS)
        dist.destroy_process_group()


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise RankLost("another process of the run is gone, or the launcher was told to end")


def agreed(make: Callable[[], Value], ranks: Ranks) -> Value:
    """What each rank makes for itself, once all of them have made theirs.

    Args:
        make: called once.
        ranks: who takes part; all of them must call.

    Returns:
        This rank's.

    Raises:
        Refused: one of them could not; on all of them.
        RankLost: one of them is gone.

    Example:
        >>> agreed(lambda: 3, ALONE)
        3
    """
    if ranks.alone:
        return make()
    value: Any = None
    message, refusal = None, None
    try:
        value = make()
    except (InputError, OSError) as error:
        said = access_message(error) if isinstance(error, OSError) else str(error)
        refusal, message = error, said if ranks.number == 0 else f"rank {ranks.number}: {said}"
    messages: list[Any] = [None] * ranks.count
    with losing_ranks():
        dist.all_gather_object(messages, message, ranks.group)
    if first := next(filter(None, messages), None):
        raise Refused(first) from refusal
    return value


def from_first(value: Value, ranks: Ranks) -> Value:
    """The first rank's value, on all ranks.

    Args:
        value: anything that can be pickled; those of other ranks are not read.
        ranks: who takes part; all of them must call.

    Raises:
        RankLost: one of them is gone.

    Example:
        >>> from_first("runs/one", ALONE)
        'runs/one'
    """
    if ranks.alone:
        return value
    values: list[Any] = [value if ranks.number == 0 else None]
    with losing_ranks():
        dist.broadcast_object_list(values, group=ranks.group, group_src=0)
    return values[0]
