"""Leave ``torch.inference_mode``, in which torch computes no gradients."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def outside_inference_mode() -> Generator[None]:
    """Leave inference mode, if it is on; results then have no graph, as under ``torch.no_grad()``."""
    # torch.compile cannot trace the question.
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def ordinary(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy that autograd accepts if it was made in inference mode."""
    return tensor.clone() if not torch.compiler.is_compiling() and tensor.is_inference() else tensor
