"""How the numbers of an experiment are computed: device, precision, memory layout and micro-batches."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch
from attrs import field, frozen
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fishr.checks import one_of, whole
from fishr.errors import InputError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
FIRST, LEAST = 2.0**16, 2.0**-10
_GROWTH_AFTER = 2000


@frozen
class Compute:
    """Settings of a step that change its result by rounding only; the defaults round least.

    Weights, head, losses and gradient statistics are float32 or wider in every precision.

    Args:
        precision: precision of the featurizer. ``"fp32"``; ``"tf32"`` multiplies matrices with 10 bits of mantissa on a
            GPU that can; ``"bf16"`` and ``"fp16"`` run under autocast. With ``"fp16"`` an adaptive scale multiplies
            the gradient that enters the featurizer and divides the result; losses and penalties are never scaled.
        micro_batches: number of parts in which a batch passes through the featurizer, so that only one part's
            activations are in memory. Loss, penalties and gradient moments are those of the whole batch. More than one
            part costs one more forward pass.
        channels_last: keep images and convolutions in the memory layout that tensor cores read.
        compile: compile the featurizer by ``torch.compile`` in the first step.

    Raises:
        InputError: a setting outside its range.

    Example:
        >>> Compute(precision="bf16").micro_batches
        1

    Source:
        Micro-batches: Gao et al. 2021 (arXiv 2101.06983), who cache the gradient of representations.
    """

    precision: Precision = field(default="fp32", validator=one_of(*get_args(Precision)))
    micro_batches: int = field(default=1, validator=whole(1), metadata={"formerly": "pieces"})
    channels_last: bool = False
    compile: bool = False

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context of the featurizer's forward pass: autocast to 16 bits, or nothing."""
        if self.precision not in _AUTOCAST:
            return nullcontext()
        return torch.autocast(device.type, dtype=_AUTOCAST[self.precision])

    def products(self) -> AbstractContextManager[None]:
        """Return the context of the featurizer's passes, forward and backward, for float32 matrix products."""
        return products("tf32" if self.precision == "tf32" else "ieee")


@contextmanager
def products(precision: Literal["ieee", "tf32"]) -> Generator[None]:
    """Multiply and convolve float32 in a precision on GPUs; torch's default convolves in tf32."""
    matmul: Any = torch.backends.cuda.matmul
    convolution: Any = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before = matmul.fp32_precision, convolution.fp32_precision
    try:
        matmul.fp32_precision = convolution.fp32_precision = precision
        yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


class FourierConvolutions(TorchFunctionMode):
    """Convolve many small images on a CPU by NNPACK's Fourier transforms, which round as finely; without gradients."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and len(args) == 7 and _suits_fourier(*args):
            inputs, weight, bias, _, padding, _, _ = args
            kernels: Any = torch
            return kernels._nnpack_spatial_convolution(inputs.contiguous(), weight, bias, padding)
        return func(*args, **(kwargs or {}))


def _suits_fourier(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: tuple[int, int] | str,
    dilation: Any,
    groups: int,
) -> bool:
    # With fewer images or channels, transforming the weights takes what the multiplications save.
    many = len(inputs) >= 128 and weight.shape[1] >= 16
    plain = (*weight.shape[2:], *stride, *dilation, groups) == (3, 3, 1, 1, 1, 1, 1)
    usual = inputs.dtype == torch.float32 and inputs.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if not (many and plain and usual) or isinstance(padding, str):
        return False
    sides = [side + 2 * edge - 2 for side, edge in zip(inputs.shape[2:], padding, strict=True)]
    # A tile gives 14 x 14 values. For other sides NNPACK takes Winograd's transforms, which round 15 times as coarsely.
    # The last call also initializes the library.
    here = hasattr(torch, "_nnpack_spatial_convolution")
    return here and all(side % 14 in (0, 13) for side in sides) and torch.backends.nnpack.is_available()


@frozen
class GradientScale:
    """Adaptive scale of the gradient that enters a 16-bit featurizer, with the numbers of torch's ``GradScaler``."""

    # Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2.

    value: float = FIRST
    steps: int = 0

    def after(self, finite: bool) -> "GradientScale":
        """Return the next scale: half after a gradient that is not finite, twice after 2,000 in a row that are."""
        if not finite:
            return GradientScale(self.value / 2)
        if self.steps + 1 == _GROWTH_AFTER:
            return GradientScale(self.value * 2)
        return GradientScale(self.value, self.steps + 1)


def resolve_device(name: str) -> torch.device:
    """Return the device of "cpu", "cuda", "cuda:1", "mps" (Apple's GPU) or "auto", which is the GPU if there is one.

    Raises:
        InputError: no such device here.
    """
    gpus = torch.cuda.device_count()
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if gpus else "mps" if mps else "cpu")
    here = ["auto", "cpu", *(f"cuda:{index}" for index in range(gpus)), *(["mps"] if mps else [])]
    if name not in (*here, *(["cuda"] if gpus else [])):
        reason = "" if gpus or mps else ": no GPU was found"
        raise InputError(f"device: got {name!r}, expected {', '.join(here[:-1])} or {here[-1]}{reason}")
    return torch.device(name)
