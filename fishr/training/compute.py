"""How the numbers of an experiment are computed: in which precision, layout and pieces, compiled or not."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
from attrs import field, frozen

from fishr.training.checks import one_of, whole

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def _precision(compute: object, attribute: Any, value: Precision) -> None:
    one_of(*get_args(Precision))(compute, attribute, value)


@frozen
class Compute:
    """How a step is computed; what it computes is the same up to rounding, and the defaults round least.

    Weights, head, losses and gradient statistics are float32 or wider in every precision.

    Args:
        precision: of the featurizer's passes. ``"fp32"``; ``"tf32"``, which multiplies matrices with 10 bits of
            mantissa on a GPU that can; ``"bf16"`` and ``"fp16"``, which run it under autocast. With ``"fp16"`` the
            gradient that enters the featurizer is multiplied by a scale that adapts, and its result divided, so that
            losses and penalties are never scaled.
        pieces: that a batch goes through the featurizer in, to hold the activations of one at a time. Loss, penalties
            and their moments are those of the whole batch. Above 1 it costs one more forward pass.
        channels_last: keep images and convolutions in the memory layout that tensor cores read.
        compile: compile the featurizer by ``torch.compile`` in the first step.

    Raises:
        InputError: a setting outside its range.

    Example:
        >>> Compute(precision="bf16").pieces
        1

    Source:
        Pieces: Gao et al. 2021 (arXiv 2101.06983), who cache the gradient of representations.
    """

    precision: Precision = field(default="fp32", validator=_precision)
    pieces: int = field(default=1, validator=whole(1))
    channels_last: bool = False
    compile: bool = False

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context of a forward pass of the featurizer: autocast to 16 bits, or nothing.

        Example:
            >>> with Compute().autocast(torch.device("cpu")):
            ...     torch.is_autocast_enabled("cpu")
            False
        """
        if self.precision not in _AUTOCAST:
            return nullcontext()
        return torch.autocast(device.type, dtype=_AUTOCAST[self.precision])

    def products(self) -> AbstractContextManager[None]:
        """The context of the featurizer's passes, forward and backward: how float32 matrices are multiplied.

        Example:
            >>> with Compute(precision="tf32").products():
            ...     torch.backends.cuda.matmul.fp32_precision
            'tf32'
        """
        return products("tf32" if self.precision == "tf32" else "ieee")


@contextmanager
def products(precision: Literal["ieee", "tf32"]) -> Generator[None]:
    """Within it a GPU multiplies and convolves float32 in that precision; torch's own default convolves in tf32.

    Example:
        >>> with products("ieee"):
        ...     torch.backends.cudnn.conv.fp32_precision
        'ieee'
    """
    matmul: Any = torch.backends.cuda.matmul
    convolution: Any = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before = matmul.fp32_precision, convolution.fp32_precision
    try:
        matmul.fp32_precision = convolution.fp32_precision = precision
        yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before
