"""Forward passes that change neither the module nor its inputs.

A layer may work in place (``nn.ReLU(inplace=True)``, ``x += 1``), update buffers (running statistics, spectral
normalization) or set attributes. Statistics therefore run on a twin of the module, with fresh copies of inputs and
buffers in each pass, so that no statistic depends on what was computed before it.
"""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from fishr.compilation import uncompiled
from fishr.errors import InputError
from fishr.statistics.twice_differentiable import GroupNormalizations, double_backward_kernels
from fishr.types import check_module

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@uncompiled
def twin(module: nn.Module, buffers: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Return a copy of a module that shares its parameters; buffers are copies of its own or of the given ones."""
    memo = {id(parameter): parameter for parameter in module.parameters()}
    for name, buffer in module.named_buffers():
        memo[id(buffer)] = (buffer if buffers is None else buffers[name]).clone()  # pyright: ignore[reportArgumentType]
    for part in module.modules():
        for value in vars(part).values():
            # deepcopy refuses tensors with a graph, such as an attention map that the module keeps.
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach()  # pyright: ignore[reportArgumentType]
    try:
        return copy.deepcopy(module, cast(dict[int, Any], memo))
    except (RuntimeError, TypeError, NotImplementedError, AssertionError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise InputError(
            f"head: got {type(module).__qualname__}, which copy.deepcopy cannot copy ({reason}), expected a module "
            "that it can; statistics run on a copy"
        ) from error


def pure_forward(module: nn.Module, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return a twin's logits with some parameters and buffers given, by kernels with second derivatives."""
    buffers = {name: tensors.get(name, buffer).clone() for name, buffer in module.named_buffers()}
    with GroupNormalizations(), double_backward_kernels(module), eagerly(module):
        output = torch.func.functional_call(module, {**tensors, **buffers}, (inputs.clone(),))
    return checked_rows("head", module, output, len(inputs))


def checked_rows(role: str, module: object, output: Any, rows: int) -> Tensor:
    """Return the output of a head or featurizer if it is a tensor with a row for each sample."""
    name = getattr(module, "__name__", type(module).__qualname__)
    what = "logits [N, C]" if role == "head" else "features [N, ...]"
    if not isinstance(output, Tensor):
        raise InputError(
            f"{role}: got a {type(output).__qualname__} from {name}, expected a tensor of {what}; "
            "wrap it in a module that returns the tensor alone"
        )
    if output.shape[:1] != (rows,):
        raise InputError(f"{role}: got shape {tuple(output.shape)} from {name} for {rows} samples, expected {what}")
    return output


def check_features(head: nn.Module, features: Tensor) -> None:
    """Refuse features of a width or type that a head which begins with a linear layer does not take."""
    first = head
    while isinstance(first, nn.Sequential) and len(first):
        first = first[0]
    if type(first) is not nn.Linear or first._forward_pre_hooks:  # pyright: ignore[reportPrivateUsage]
        return
    got, name = f"features: got shape {tuple(features.shape)}", type(head).__qualname__
    if features.ndim < 2 or features.shape[-1] != first.in_features:
        raise InputError(
            f"{got}, expected [N, {first.in_features}] for the head, a {name}; flatten or pool the features to this "
            "width, or make a head of theirs"
        )
    if not features.is_floating_point():
        raise InputError(
            f"{got} and type {features.dtype}, expected floating point for the head, a {name}; use float()"
        )


def refuse_module(module: nn.Module) -> None:
    """Refuse a head that no route can take gradient statistics of."""
    check_module(module)
    for part in module.modules():
        if isinstance(part, _WRAPPERS):
            raise InputError(
                f"head: got a {type(part).__qualname__}, expected the module inside it; give its .module, which has "
                "the same parameters"
            )
    for name, parameter in module.named_parameters():
        if parameter.is_inference():
            raise InputError(
                f"head: parameter {name!r} was created in torch.inference_mode(), expected one that autograd can "
                "track; create the module outside"
            )
        if hasattr(parameter, "placements"):
            raise InputError(
                f"head: parameter {name!r} is a DTensor, sharded over ranks, expected a whole tensor on each; apply "
                "fully_shard to the featurizer alone"
            )


def refuse_batch_statistics(head: nn.Module) -> None:
    """Refuse batch norm that computes batch statistics: they mix the samples, so that none has its own gradient."""
    for name, module in head.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
            continue
        if module.training or module.running_mean is None:
            parameters = [f"{name}.{short}" if name else short for short, _ in module.named_parameters(recurse=False)]
            of = f" (parameters {', '.join(parameters)})" if parameters else ""
            raise InputError(
                f"head layer {name or 'itself'!r} of {type(module).__module__}.{type(module).__qualname__}{of}: "
                "batch statistics mix the samples, so that none has a gradient of its own; "
                "give the layer running statistics and put it in eval mode"
            )


def is_compiled(module: nn.Module) -> bool:
    """Return whether a part of the module is compiled."""
    return any(hasattr(part, "_orig_mod") for part in module.modules())


def eagerly(module: nn.Module) -> AbstractContextManager[object]:
    """Return the context in which compiled parts of a module run uncompiled."""
    return torch.compiler.set_stance("force_eager") if is_compiled(module) else nullcontext()
