"""Time of a plane through a linear head's weights: affine logits and separable exponentials, against a pass a point."""

import torch
from torch import Tensor, nn

from benchmarks.machine import device, interleaved, quartiles
from benchmarks.table import Spread, Table, Verdict
from benchmarks.ways import Disagreement, Size
from fishr.landscape import Plane, Scores, axis, linear_scores, random_directions, weights_of

OURS, DIRECT = "affine logits", "a pass a point"
_SECONDS, _TIMES = 2.0, 10.0
_TOLERANCE = 1e-5


def table(quick: bool) -> Table:
    """Seconds of each way over the whole grid, and their ratios to ours; all of them with losses and accuracies.

    Raises:
        Disagreement: the ways do not give the same losses.
    """
    size, points = (Size(3, 20, 64, 65), 5) if quick else (Size(3, 667, 2048, 65), 51)
    head, samples = _problem(size)
    plane = Plane(weights_of(head), *random_directions(weights_of(head), 0).vectors)
    coordinates = axis(-1.0, 1.0, points)
    ways = {
        OURS: lambda: linear_scores(plane, samples, coordinates, coordinates),
        DIRECT: lambda: _direct(head, plane, samples, coordinates),
    }
    apart = float((ways[DIRECT]().losses - ways[OURS]().losses).abs().max())
    if not apart < _TOLERANCE:
        raise Disagreement(f"{DIRECT}: a loss differs by {apart:.1e}, expected below {_TOLERANCE:g}")
    times = interleaved(ways, rounds=3, quick=quick)
    seconds = {name: Spread(*quartiles(times.seconds[name]), 3) for name in ways}
    ratio = Spread(*times.ratio(DIRECT, OURS), 1)
    fast = None if quick else Verdict(seconds[OURS].median, _SECONDS, at_least=False)
    faster = None if quick else Verdict(ratio.median, _TIMES, at_least=True)
    return Table(
        f"A {points}×{points} plane, {size}, float32: risks and accuracies of each domain; [quartiles]",
        ("way", "seconds", "times ours", "target"),
        ((OURS, seconds[OURS], None, fast), (DIRECT, seconds[DIRECT], ratio, faster)),
    )


def _problem(size: Size) -> tuple[nn.Linear, list[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    where = device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Linear(size.features, size.classes).to(where)
    samples = [
        (
            torch.randn(size.samples, size.features, generator=generator).to(where),
            torch.randint(size.classes, (size.samples,), generator=generator).to(where),
        )
        for _ in range(size.domains)
    ]
    return head, samples


@torch.no_grad()
def _direct(head: nn.Linear, plane: Plane, samples: list[tuple[Tensor, Tensor]], coordinates: Tensor) -> Scores:
    """What one would write: all domains through one matrix product a point, sums kept on the device to the end."""
    features, labels = (torch.cat(parts) for parts in zip(*samples, strict=True))
    sizes = [len(labels) for _, labels in samples]
    moved = nn.Linear(head.in_features, head.out_features, device=features.device)
    rows = list[Tensor]()
    for x in coordinates.tolist():
        for y in coordinates.tolist():
            weights = plane.at(x, y)
            moved.weight.copy_(weights["weight"])
            moved.bias.copy_(weights["bias"])
            logits = moved(features)
            losses = nn.functional.cross_entropy(logits, labels, reduction="none")
            right = logits.argmax(1) == labels
            rows.append(
                torch.stack(
                    [torch.stack([part.mean() for part in each.double().split(sizes)]) for each in (losses, right)]
                )
            )
    losses, accuracies = torch.stack(rows, 2).unflatten(2, (len(coordinates), -1)).double().cpu()
    return Scores(losses, accuracies)
