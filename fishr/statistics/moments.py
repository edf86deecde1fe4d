"""Per-domain moments and Gram matrix of per-sample gradients, by the fastest exact route."""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from fishr.compilation import uncompiled
from fishr.errors import InputError
from fishr.grad_mode import ordinary, outside_inference_mode
from fishr.losses import CrossEntropy, Loss, labeled_rows, loss_deltas
from fishr.row_checks import check_batch, check_rows, check_sizes
from fishr.statistics.backpack_limits import NoFormula, refuse_unsupported
from fishr.statistics.domain_moments import GradientMoments
from fishr.statistics.linear_heads import (
    Factors,
    has_bias,
    is_linear_stack,
    is_plain_linear,
    linear_deltas,
    linear_gram,
    linear_moments,
    stack_factors,
    stack_inputs,
    stacked_gram,
    stacked_moments,
)
from fishr.statistics.pure_forward import check_features, is_compiled, refuse_batch_statistics, refuse_module
from fishr.statistics.twice_differentiable import has_recurrence
from fishr.types import Layout

if TYPE_CHECKING:
    from fishr.statistics.recorded_calls import Recording

Route = Literal["auto", "closed_form", "backpack", "functional"]


@uncompiled
@outside_inference_mode()
def gradient_moments(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    sizes: tuple[int, ...],
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
    route: Route = "auto",
    accumulate: torch.dtype | None = None,
    layers: tuple[str, ...] | None = None,
) -> GradientMoments:
    """Return mean and variance, in each domain, of the gradients of the per-sample losses by the head's parameters.

    Neither ``.grad`` nor the head, its buffers or the features change. All routes return the same numbers: ``"auto"``
    takes the closed form for linear layers with activations between them, BackPACK for other layers with formulas, and
    ``torch.func``, which is slower, for all others. They compute in float32 or wider, also under autocast. Per-sample
    gradients exist a chunk at a time, so that memory grows with the samples as that of a plain training step does.

    Args:
        head: module whose trainable parameters the gradients are taken by, up to a whole network.
        features: [N, ...] inputs of the head, ordered by domain.
        sizes: samples of each domain, summing to N.
        route: ``"auto"``, ``"closed_form"``, ``"backpack"`` or ``"functional"`` (``torch.func``, any module).
        accumulate: type of sums over samples, such as ``torch.float64``; by default the features'.
        layers: names of layers or parameters of the head that the gradients are taken by, such as ``"layer4"`` or
            ``"layer4.0.conv1.weight"``; each stands for all trainable parameters below it. None: all.

    Returns:
        Moments with K rows and P columns, differentiable by features and all parameters of the head, including those
        outside ``layers``, unless gradients are switched off. Samples without a label, which a loss may have, are left
        out.

    Raises:
        InputError: the sizes do not fit, the route or a name does not exist, batch norm mixes the samples, the head is
            not usable, or a chosen parameter has no formula on the requested route (the message names it).

    Example:
        >>> head, features, labels = nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
        >>> moments = gradient_moments(head, features, labels, sizes=(2, 3))
        >>> moments.variance.shape, moments.count
        (torch.Size([2, 8]), (2, 3))
        >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> gradient_moments(network, features, labels, sizes=(2, 3), layers=("0.weight", "2")).layout.names
        ('0.weight', '2.weight', '2.bias')

    Source:
        Ramé et al. 2022 (arXiv 2109.02934), equation 3; divided by n, as both public implementations do.
    """
    sizes = check_batch(features, labels, sizes)
    rows, sizes = labeled_rows(loss, labels, sizes)
    if rows is not None:
        features, labels, sizes = features[rows], labels[rows], check_sizes(sizes, len(rows))
    refuse_module(head)
    check_features(head, features)
    refuse_batch_statistics(head)
    chosen = resolve_route(head, route, features, layers)
    with torch.autocast(features.device.type, enabled=False):
        features, labels = at_least_float32(ordinary(features)), ordinary(labels)
        dtype = accumulate or _sum_type(head, features)
        if chosen == "closed_form":
            if is_linear_stack(head):
                own = [Factors(d.to(dtype), z.to(dtype), bias) for d, z, bias in _factors(head, features, labels, loss)]
                return stacked_moments(head, own, sizes)
            deltas = linear_deltas(head, features, labels, loss)
            return linear_moments(deltas.to(dtype), features.to(dtype), sizes, bias=has_bias(head))
        if chosen == "backpack":
            # Here, because importing BackPACK takes longer than a closed form.
            from fishr.statistics.backpack_moments import backpack_moments

            try:
                return backpack_moments(head, features, labels, sizes, loss, dtype, layers)
            except NoFormula:
                if route != "auto":
                    raise
        from fishr.statistics.functional_moments import functional_moments

        return functional_moments(head, features, labels, sizes, loss, dtype, layers)


def recording_of(module: nn.Module, layers: tuple[str, ...], inputs: Tensor) -> "Recording | None":
    """Return what records a pass of a module for ``recorded_moments``; None where moments take a pass of their own."""
    layout = Layout.of(module, layers)
    narrow = torch.is_autocast_enabled(inputs.device.type) or at_least_float32(inputs).dtype != inputs.dtype
    if narrow or is_compiled(module):
        return None
    try:
        refuse_unsupported(module, layout.names, graph=True)
    except NoFormula:
        return None
    from fishr.statistics.recorded_calls import Recording

    return Recording(module, layout)


@uncompiled
def moments_of_recording(
    recording: "Recording", inputs: Tensor, losses: Tensor, sizes: tuple[int, ...]
) -> GradientMoments | None:
    """Return the moments from the graph of a recorded pass from inputs to losses; None where it has no formula."""
    refuse_module(recording.module)
    refuse_batch_statistics(recording.module)
    if not recording.complete:
        return None
    from fishr.statistics.backpack_moments import recorded_moments

    try:
        with torch.autocast(losses.device.type, enabled=False):
            return recorded_moments(recording, inputs, losses.sum(), sizes, _sum_type(recording.module, inputs))
    except NoFormula:
        return None


@uncompiled
@outside_inference_mode()
def gradient_gram(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
    layers: tuple[str, ...] | None = None,
    route: Literal["auto", "closed_form", "functional"] = "auto",
) -> Tensor:
    """Return the Gram matrix of the per-sample gradients, K_nm = g_n · g_m.

    Linear layers with activations between them take the closed form, any other head ``torch.func``. Neither the head,
    its buffers nor the features change.

    Args:
        features: [N, ...] inputs of the head.
        layers: names of the head's layers or parameters that the gradients are taken by; None: all.
        route: ``"auto"``, ``"closed_form"`` or ``"functional"``.

    Returns:
        [N, N], (loss/parameter)², differentiable by features and head.

    Raises:
        InputError: features and labels differ in rows, or the head or the route is not usable.

    Example:
        >>> gradient_gram(nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])).shape
        torch.Size([5, 5])
    """
    check_rows(features, labels)
    refuse_module(head)
    check_features(head, features)
    with torch.autocast(features.device.type, enabled=False):
        features, labels = at_least_float32(ordinary(features)), ordinary(labels)
        if resolve_route(head, route, features, layers) == "closed_form":
            if is_linear_stack(head):
                return stacked_gram(_factors(head, features, labels, loss))
            return linear_gram(linear_deltas(head, features, labels, loss), features, bias=has_bias(head))
        from fishr.statistics.functional_moments import per_sample_gradients

        gradients = per_sample_gradients(head, features, labels, loss, layers)
        return gradients @ gradients.T


def resolve_route(
    head: nn.Module, route: Route, features: Tensor, layers: tuple[str, ...] | None = None
) -> Literal["closed_form", "backpack", "functional"]:
    """Return the route for a head on such features; refuse an unknown one, or a closed form that does not apply."""
    whole = layers is None or Layout.of(head, layers) == Layout.of(head)
    outer_products = whole and features.ndim == 2 and (is_plain_linear(head) or _fits_stack(head, features))
    if route == "auto":
        # BackPACK's formulas for recurrent layers cannot be differentiated again.
        other = "functional" if has_recurrence(head) else "backpack"
        return "closed_form" if outer_products else other
    if route not in ("closed_form", "backpack", "functional"):
        raise InputError(f"route: got {route!r}, expected 'auto', 'closed_form', 'backpack' or 'functional'")
    if route == "closed_form" and not outer_products:
        raise InputError(
            f'route: got "closed_form" for a head of {type(head).__qualname__} on features of shape '
            f"{tuple(features.shape)}, which is for all of a trainable nn.Linear, or of several in a row with "
            'activations between them, without hooks on [N, F]; use "auto"'
        )
    return route


def _fits_stack(head: nn.Module, features: Tensor) -> bool:
    return is_linear_stack(head) and {parameter.dtype for parameter in head.parameters()} == {features.dtype}


def _factors(head: nn.Sequential, features: Tensor, labels: Tensor, loss: Loss) -> tuple[Factors, ...]:
    logits, read = stack_inputs(head, features)
    return stack_factors(head, read, loss_deltas(loss, logits, labels))


def _sum_type(head: nn.Module, features: Tensor) -> torch.dtype:
    """Return the type of sums over samples: that of the features, or of the parameters if these are indices."""
    floating = features if features.is_floating_point() else next(p for p in head.parameters() if p.requires_grad)
    return at_least_float32(floating).dtype


def at_least_float32(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
