"""Scores of any module on a plane of its weights, by one forward pass a point."""

import torch
from torch import Tensor, nn

from fishr.landscape.plane import Plane, Samples, Scores, check_alike, total_scores
from fishr.losses import CrossEntropy, Loss, labeled_samples
from fishr.statistics.pure_forward import pure_forward, twin


def network_scores(
    module: nn.Module,
    plane: Plane,
    samples: Samples,
    xs: Tensor,
    ys: Tensor,
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
    chunk: int = 1024,
) -> Scores:
    """Return losses and accuracies of any module at all points of a grid, in eval mode.

    Batch normalization uses its running statistics, or the plane's if they are among its weights. They are not
    re-estimated at each point.

    Args:
        module: its mode, parameters, buffers and hooks do not change.
        plane: some or all of the module's parameters and buffers by name; the others stay fixed.
        samples: inputs [n, ...] on the module's device, and labels, of each domain.
        xs: [nx], values of α.
        ys: [ny], values of β.
        chunk: samples of one forward pass, which bounds memory.

    Returns:
        Scores of all domains, on the CPU.

    Raises:
        InputError: the plane names a parameter that the module does not have.

    Example:
        >>> module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> plane = Plane({"2.bias": torch.zeros(2)}, {"2.bias": torch.ones(2)})
        >>> data = (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]))
        >>> network_scores(module, plane, [data], torch.linspace(-1, 1, 3), torch.zeros(1)).losses.shape
        torch.Size([1, 3, 1])
    """
    known = dict(module.named_parameters()) | dict(module.named_buffers())
    check_alike(plane.center, {name: value for name, value in known.items() if name in plane.center})
    copied, samples = twin(module).eval(), [labeled_samples(loss, *domain) for domain in samples]
    columns = list[Tensor]()
    with torch.no_grad():
        for x, y in torch.cartesian_prod(xs.double(), ys.double()).reshape(-1, 2).tolist():
            weights = plane.at(x, y)
            for inputs, labels in samples:
                total = torch.zeros(2, dtype=torch.float64, device=inputs.device)
                for some, own in zip(inputs.split(chunk), labels.split(chunk), strict=True):
                    total += total_scores(loss, pure_forward(copied, some, weights), own)
                columns.append(total / len(inputs))
    shape = (len(xs), len(ys), len(samples), 2)
    losses, accuracies = torch.stack(columns).cpu().reshape(shape).permute(3, 2, 0, 1).contiguous()
    return Scores(losses, accuracies)
