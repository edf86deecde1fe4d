"""Color jitter of a batch of images, each with its own draw, and normalization, on the model's device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fishr.data.images.domainbed_augmentation import DrawnAugmentation
from fishr.data.images.preprocessing import Preprocessing

LUMA = (0.2989, 0.587, 0.114)
# Values of a block that stay in a CPU's caches from one operation to the next.
_BLOCK_VALUES = 1 << 20


def jitter_colors(
    images: Tensor, augmentations: Sequence[DrawnAugmentation], preprocessing: Preprocessing, out: Tensor | None = None
) -> Tensor:
    """Jitter the colors of uint8 crops, each in its own order, and normalize them; return float32, in ``out``."""
    # Brightness, contrast and saturation are three rounds of one blend of the whole batch; the hue turns before the
    # round given by the image's order. So each image has four changes instead of four of each.
    made = torch.empty(images.shape, device=images.device) if out is None else out
    # Images of one order are adjacent, so that most rounds of a block are of one kind.
    order = sorted(range(len(augmentations)), key=lambda row: _order(augmentations[row]))
    several = _BLOCK_VALUES // images.shape[1:].numel() if images.device.type == "cpu" else len(order)
    for start in range(0, len(order), max(1, several)):
        rows = order[start : start + max(1, several)]
        place = torch.tensor(rows, device=images.device)
        values = images.index_select(0, place).float()
        made.index_copy_(0, place, _jitter(values, [augmentations[row] for row in rows], preprocessing))
    return made


def _order(drawn: DrawnAugmentation) -> tuple[bool, int, tuple[str, ...]]:
    """Sort key: gray images first, then the position of the hue."""
    names = tuple(name for name, _ in drawn.jitters)
    return not drawn.gray, names.index("hue"), names


def _jitter(values: Tensor, augmentations: Sequence[DrawnAugmentation], preprocessing: Preprocessing) -> Tensor:
    """Jitter and normalize images sorted by ``_order``, from 0 to 255, in place."""
    device = values.device
    angles = torch.tensor([dict(drawn.jitters)["hue"] for drawn in augmentations], device=device).view(-1, 1, 1)
    blends = [[jitter for jitter in drawn.jitters if jitter[0] != "hue"] for drawn in augmentations]
    rounds = list(zip(*blends, strict=True))
    runs = _runs([_order(drawn)[:2] for drawn in augmentations])
    for number in range(len(rounds) + 1):
        for start, stop, (_, position) in runs:
            if position == number:
                _turn(values[start:stop], angles[start:stop])
        if number < len(rounds):
            _blend(values, rounds[number])
    gray = sum(drawn.gray for drawn in augmentations)
    if gray:
        values[:gray] = _gray(values[:gray])
    mean, std = preprocessing.mean, preprocessing.std
    numbers = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    scale, shift = (torch.tensor(each, device=device).view(3, 1, 1) for each in numbers)
    return values.mul_(scale).add_(shift)


def _runs(keys: Sequence[tuple[bool, int]]) -> list[tuple[int, int, tuple[bool, int]]]:
    """Start and stop of each run of equal keys."""
    starts = [row for row in range(len(keys)) if row == 0 or keys[row] != keys[row - 1]]
    return [(start, stop, keys[start]) for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True)]


def _blend(values: Tensor, jitters: Sequence[tuple[str, float]]) -> None:
    """Mix each image with black, its mean gray or its own gray image, by its factor."""
    kinds = {kind for kind, _ in jitters}
    table = [[f, (1 - f) * (kind == "saturation"), (1 - f) * (kind == "contrast")] for kind, f in jitters]
    factor, own, mean = torch.tensor(table, device=values.device).view(-1, 3, 1, 1, 1).unbind(1)
    others = list[Tensor]()
    if "saturation" in kinds:
        others.append(_gray(values).mul_(own))
    if "contrast" in kinds:
        channels = values.mean((2, 3))
        others.append((channels * torch.tensor(LUMA, device=values.device)).sum(1).view(-1, 1, 1, 1) * mean)
    values.mul_(factor)
    for other in others:
        values.add_(other)
    values.clamp_(0, 255)


def _gray(values: Tensor) -> Tensor:
    red, green, blue = values.split(1, 1)
    return (red * LUMA[0]).add_(green * LUMA[1]).add_(blue * LUMA[2])


def _turn(values: Tensor, angles: Tensor) -> None:
    """Change the hue in place, by at most a third of the circle."""
    # On a circle of length 6 with red at 0, green at 2 and blue at 4, a color of largest channel M, smallest m and
    # chroma C = M − m has the hue (M − R + G + B − 2m) / C from red, toward green if G ≥ B. A channel is m − C +
    # C · min(max(d, 1), 2), where d is the distance of the hue from the opposite of the channel, plus or minus 3.
    red, green, blue = values.unbind(1)
    largest, smallest = torch.maximum(red, green), torch.minimum(red, green)
    torch.maximum(largest, blue, out=largest)
    torch.minimum(smallest, blue, out=smallest)
    hue = (green + blue).sub_(smallest, alpha=2).sub_(red).add_(largest).copysign_(green - blue)
    chroma = largest.sub_(smallest)
    # Without color, the numerator is 0 too.
    hue.div_(chroma.clamp(min=1e-30)).add_(angles * 6)
    below = smallest.sub_(chroma)
    for channel, place in ((red, 0), (green, 2), (blue, -2)):
        distance = (hue - place).abs_().sub_(3).abs_().clamp_(1, 2)
        torch.add(distance.mul_(chroma), below, out=channel)
