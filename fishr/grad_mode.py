"""Modes of torch that change how gradients are computed: inference mode and ``torch.func.vmap``."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

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


def under_vmap() -> bool:
    """Return whether ``torch.func.vmap`` maps the code, for example over several heads."""
    functions: Any = torch._C._functorch  # pyright: ignore
    level = functions.peek_interpreter_stack()
    return level is not None and level.key() == functions.TransformType.Vmap
