"""Processes that ``torchrun`` started as one run: joining, agreeing, and the loss of one of them."""

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
    """Input that one rank refuses, raised on all ranks with the message of the first that does."""


@contextmanager
def joined(device: str) -> Generator[tuple[Ranks, str]]:
    """Join the processes that ``torchrun`` started; yield the ranks and the name of this rank's device.

    ``device`` is as for ``resolve_device``; "cuda", and "auto" where there is a GPU, are each rank's own GPU. Without a
    launcher, the ranks are ``ALONE``. The launcher's SIGTERM, which follows the death of a rank, raises ``RankLost``
    within the context; a second one is ignored, so that the process can report it.

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
        # After a peer failed, destroy_process_group would hang; the process is about to end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    except BaseException:
        _leave(before)
        raise
    _leave(before)


def _leave(before: Any) -> None:
    signal.signal(signal.SIGTERM, before)
    if dist.is_initialized():
        # Where something else holds the group too, as torch's compiler does, gloo's threads outlive it. They need
        # Python's lock to release their last tensors; after the interpreter has ended, the process would abort.
        time.sleep(_LAST_TENSORS)
        dist.destroy_process_group()


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise RankLost("another process of the run is gone, or the launcher was ended")


def agreed(make: Callable[[], Value], ranks: Ranks) -> Value:
    """Return this rank's result once all ranks have theirs; raise ``Refused`` on all where one refuses its input."""
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
    """Return the first rank's value, which can be pickled, on all ranks."""
    if ranks.alone:
        return value
    values: list[Any] = [value if ranks.number == 0 else None]
    with losing_ranks():
        dist.broadcast_object_list(values, group=ranks.group, group_src=0)
    return values[0]
