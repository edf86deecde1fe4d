"""How many numbers are alive at once while something runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):
    """Notes every tensor that an operation returns, and sums up those that are still there after each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._seen = dict[int, tuple[StorageWeakRef, int]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._seen[storage._cdata] = (StorageWeakRef(storage), storage.nbytes() // tensor.element_size())
        self._seen = {key: entry for key, entry in self._seen.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(elements for _, elements in self._seen.values()))
        return out


def peak_of_live_tensors(step: Callable[[int], object], samples: int) -> int:
    """The most elements that are alive at once during ``step(samples)``, forward and backward."""
    with torch.random.fork_rng(), _Live() as live:
        step(samples)
    return live.peak
