"""Diagonals of a head's Hessian and Gauss-Newton matrix by BackPACK, for chains of layers that it knows.

BackPACK's numbers carry the loss's own factor: with ``reduction="sum"`` they are sums over samples, divided here by n.
"""

import copy
import warnings
from typing import Literal

import torch
from backpack import backpack, extend
from backpack.context import CTX
from backpack.extensions import DiagGGNExact, DiagHessian
from torch import Tensor, nn

from fishr.losses import BinaryCrossEntropy, CrossEntropy, Loss
from fishr.types import Layout

# Layers whose second derivatives BackPACK has for both quantities, by exact class.
_LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.ReLU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.LogSigmoid, nn.ELU, nn.SELU),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.Flatten),
)
# Elements of a square root of one layer's curvature, [width, n, width], that are held at a time.
_ELEMENTS = 1 << 24

Kind = Literal["hessian", "ggn"]


def has_backpack_curvature(head: nn.Module, features: Tensor, labels: Tensor, loss: Loss) -> bool:
    """Return whether BackPACK's diagonals are those of this head and loss on such labels."""
    # BackPACK must see every operation: a `nn.Sequential` of its own layers without hooks, each used once.
    layers = list(_chain(head))
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    known = all(type(layer) in _LAYERS for layer in layers) and type(head) is nn.Sequential
    hooked = any(getattr(part, f"_{kind}_hooks") for part in layers for kind in ("forward", "forward_pre", "backward"))
    shared = any(len(set(map(id, each))) < len(each) for each in (layers, parameters))
    if not known or hooked or shared or (type(layers[0]) is nn.Linear and features.ndim != 2):
        return False
    if loss == BinaryCrossEntropy():
        # BackPACK's logistic loss is of a single output.
        with torch.no_grad():
            return head(features[:1]).shape[1:] == (1,)
    return type(loss) is CrossEntropy and loss.one_hot(labels) and loss.class_weights is None


def backpack_diagonal(head: nn.Module, features: Tensor, labels: Tensor, loss: Loss, kind: Kind) -> Tensor:
    """Return diag ∇²R [P] of one domain's mean loss, or that of its Gauss-Newton part (the Fisher for these losses)."""
    # The pass goes through a copy of the head, so that nothing stays on the user's module.
    twin = copy.deepcopy(head).requires_grad_(True)
    for module in twin.modules():
        # An in-place layer would overwrite what the hook of the layer before it needs.
        if getattr(module, "inplace", False):
            module.inplace = False  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    names = Layout.of(head).names
    width = _width(twin, features)
    extension = DiagHessian() if kind == "hessian" else DiagGGNExact()
    binary = type(loss) is BinaryCrossEntropy
    criterion = nn.BCEWithLogitsLoss(reduction="sum") if binary else nn.CrossEntropyLoss(reduction="sum")
    handles_before = len(CTX.hook_handles)
    total = torch.zeros((), dtype=features.dtype, device=features.device)
    try:
        extend(twin)
        extend(criterion)
        rows = max(1, _ELEMENTS // width**2)
        for z, y in zip(features.split(rows), labels.split(rows), strict=True):
            with torch.enable_grad(), backpack(extension), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Full backward hook is firing")
                logits = twin(z.detach())
                criterion(logits, y.to(logits.dtype).view_as(logits) if binary else y).backward()
            found = dict(twin.named_parameters())
            total = total + torch.cat([getattr(found[name], extension.savefield).flatten() for name in names])
    finally:
        # BackPACK keeps every hook it ever set in a global list.
        for handle in CTX.hook_handles[handles_before:]:
            handle.remove()
        del CTX.hook_handles[handles_before:]
    return total.detach() / len(features)


def _chain(module: nn.Module) -> list[nn.Module]:
    if type(module) is not nn.Sequential:
        return [module]
    return [layer for child in module for layer in _chain(child)]


def _width(head: nn.Module, features: Tensor) -> int:
    """Elements of the widest layer output of one sample."""
    widest, value = 1, features[:1].detach()
    with torch.no_grad():
        for layer in _chain(head):
            value = layer(value)
            widest = max(widest, value.numel())
    return widest
