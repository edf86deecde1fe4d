"""Any module on a plane of its weights: one forward pass a point, the module itself never touched."""

import torch
from torch import Tensor, nn

from fishr.landscape.plane import Plane, Samples, Scores, total_scores
from fishr.landscape.weights import check_alike
from fishr.losses import CrossEntropy, Loss
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
    """Losses and accuracies of any module at all points of a grid, in eval mode.

    Batch normalization has its running statistics, or the plane's where they are among its weights; they are not
    estimated anew at every point.

    Args:
        module: whose mode, parameters, buffers and hooks stay as they are.
        plane: of the module's parameters and buffers by name, or of some of them; the others stay.
        samples: of each domain, inputs [n, ...] on the module's device, and labels.
        xs: [nx], values of α.
        ys: [ny], values of β.
        loss: per-sample.
        chunk: rows of one forward pass, which bounds memory.

    Returns:
        Scores of every domain, on the CPU.

    Raises:
        InputError: the plane names a parameter that the module does not have.

    Example:
        >>> module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> weights = {"2.bias": torch.zeros(2)}
        >>> data = (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]))
        >>> plane = Plane(weights, {"2.bias": torch.ones(2)})
        >>> network_scores(module, plane, [data], torch.linspace(-1, 1, 3), torch.zeros(1)).losses.shape
        torch.Size([1, 3, 1])
    """
    known = dict(module.named_parameters()) | dict(module.named_buffers())
    check_alike(plane.centre, {name: value for name, value in known.items() if name in plane.centre})
    copied = eval_twin(module)
    columns = list[Tensor]()
    with torch.no_grad():
        for x, y in torch.cartesian_prod(xs.double(), ys.double()).reshape(-1, 2).tolist():
            weights = plane.at(x, y)
            columns.append(torch.stack([_mean_scores(copied, weights, *data, loss, chunk) for data in samples]))
    losses, accuracies = torch.stack(columns, 2).unflatten(2, (len(xs), len(ys))).cpu().unbind(1)
    return Scores(losses, accuracies)


def eval_twin(module: nn.Module) -> nn.Module:
    """A copy of a module in eval mode that shares its parameters and has buffers of its own.

    Example:
        >>> module = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
        >>> twin = eval_twin(module)
        >>> twin.training, module.training, twin[0].weight is module[0].weight
        (False, True, True)
    """
    return twin(module).eval()


def _mean_scores(
    copied: nn.Module, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor, loss: Loss, chunk: int
) -> Tensor:
    total = torch.zeros(2, dtype=torch.float64, device=inputs.device)
    for rows, wanted in zip(inputs.split(chunk), labels.split(chunk), strict=True):
        total += total_scores(loss, pure_forward(copied, rows, weights), wanted)
    return total / len(inputs)
