"""Memory for intermediate results that a thread uses again in its next call."""

import threading

import torch
from torch import Tensor

_OF_THREAD = threading.local()


def workspace(like: Tensor, elements: int) -> Tensor:
    """Return uninitialized memory [elements] of a tensor's type and device, until the thread's next call."""
    # On a CPU the system clears each fresh page before its first use, which takes longer than a product writes it; a
    # GPU has an allocator that keeps what is freed.
    if type(like) is not Tensor or like.device.type != "cpu":
        return like.new_empty(elements)
    held: dict[torch.dtype, Tensor] = vars(_OF_THREAD).setdefault("held", {})
    known = held.get(like.dtype)
    if known is None or len(known) < elements:
        # One of inference mode could not be written outside of it.
        with torch.inference_mode(False):
            known = held[like.dtype] = torch.empty(elements, dtype=like.dtype)
    return known[:elements]
