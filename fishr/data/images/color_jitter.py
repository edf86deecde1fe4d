"""Colours of a batch of images, each changed by its own draw, and their normalization, where the model computes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fishr.data.images.augmentation import Augmentation
from fishr.data.images.decoding import MEAN, STD

LUMA = (0.2989, 0.587, 0.114)
# Values of a piece that the caches of a CPU still hold from one operation to the next.
_PIECE = 1 << 20


def colored(images: Tensor, augmentations: Sequence[Augmentation], out: Tensor | None = None) -> Tensor:
    """Crops with their colours changed, each image's in its own order, as normalized inputs.

    Brightness, contrast and saturation are three rounds of one blend over the whole batch, with factors of each image's
    own; its hue is turned before the round that its order says. So every image has four changes, not four of each. A
    CPU takes a few images at a time. What becomes of an image depends on no other.

    Args:
        images: [n, 3, height, width] uint8.
        augmentations: drawn for each; their crops are not applied.
        out: the same shape, float32, where the result is to lie; None: a new tensor.

    Returns:
        The same shape, float32, on the same device.

    Example:
        >>> from fishr.data.images.augmentation import draw_augmentation
        >>> colored(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), [draw_augmentation(0, 2, 2)])[0, :, 0, 0]
        tensor([-2.1179, -2.0357, -1.8044])

    Source:
        torchvision's operations on floating-point tensors, up to rounding.
    """
    made = torch.empty(images.shape, device=images.device) if out is None else out
    # Images of one order lie side by side, so that most rounds of a piece are of one kind.
    order = sorted(range(len(augmentations)), key=lambda row: _order(augmentations[row]))
    several = _PIECE // images.shape[1:].numel() if images.device.type == "cpu" else len(order)
    for start in range(0, len(order), max(1, several)):
        rows = order[start : start + max(1, several)]
        place = torch.tensor(rows, device=images.device)
        values = images.index_select(0, place).float()
        made.index_copy_(0, place, _colored(values, [augmentations[row] for row in rows]))
    return made


def _order(drawn: Augmentation) -> tuple[bool, int, tuple[str, ...]]:
    """Those that turn gray come first, then it goes by the place of the hue."""
    names = tuple(name for name, _ in drawn.jitters)
    return not drawn.gray, names.index("hue"), names


def _colored(values: Tensor, augmentations: Sequence[Augmentation]) -> Tensor:
    """Of images in the order of ``_order``, from 0 to 255; changed in place."""
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
        values[:gray] = _luma(values[:gray])
    scale, shift = ([1 / (255 * s) for s in STD], [-m / s for m, s in zip(MEAN, STD, strict=True)])
    return values.mul_(_column(scale, device)).add_(_column(shift, device))


def _runs(keys: Sequence[tuple[bool, int]]) -> list[tuple[int, int, tuple[bool, int]]]:
    """Start and stop of each run of equal keys."""
    starts = [row for row in range(len(keys)) if row == 0 or keys[row] != keys[row - 1]]
    return [(start, stop, keys[start]) for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True)]


def _blend(values: Tensor, jitters: Sequence[tuple[str, float]]) -> None:
    """Each image mixed with black, its mean gray or its own gray picture, by its factor."""
    kinds = {kind for kind, _ in jitters}
    table = [[f, (1 - f) * (kind == "saturation"), (1 - f) * (kind == "contrast")] for kind, f in jitters]
    factor, own, mean = torch.tensor(table, device=values.device).view(-1, 3, 1, 1, 1).unbind(1)
    others = list[Tensor]()
    if "saturation" in kinds:
        others.append(_luma(values).mul_(own))
    if "contrast" in kinds:
        channels = values.mean((2, 3))
        others.append((channels * torch.tensor(LUMA, device=values.device)).sum(1).view(-1, 1, 1, 1) * mean)
    values.mul_(factor)
    for other in others:
        values.add_(other)
    values.clamp_(0, 255)


def _luma(values: Tensor) -> Tensor:
    red, green, blue = values.split(1, 1)
    return (red * LUMA[0]).add_(green * LUMA[1]).add_(blue * LUMA[2])


def _turn(values: Tensor, angles: Tensor) -> None:
    """Change the hue in place, by at most a third of the circle.

    On the circle of 6 on which red, green and blue are at 0, 2 and 4, a colour of largest channel M, smallest m and
    chroma C = M − m lies (M − R + G + B − 2m) / C from red, on green's side where G ≥ B. A channel is
    m − C + C · min(max(d, 1), 2), where d is how far the hue is from what lies opposite to it, less or more than 3.
    """
    red, green, blue = values.unbind(1)
    largest, smallest = torch.maximum(red, green), torch.minimum(red, green)
    torch.maximum(largest, blue, out=largest)
    torch.minimum(smallest, blue, out=smallest)
    hue = (green + blue).sub_(smallest, alpha=2).sub_(red).add_(largest).copysign_(green - blue)
    chroma = largest.sub_(smallest)
    # Where there is no colour the numerator is 0 too.
    hue.div_(chroma.clamp(min=1e-30)).add_(angles * 6)
    below = smallest.sub_(chroma)
    for channel, place in ((red, 0), (green, 2), (blue, -2)):
        distance = (hue - place).abs_().sub_(3).abs_().clamp_(1, 2)
        torch.add(distance.mul_(chroma), below, out=channel)


def _column(numbers: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(numbers, device=device).view(3, 1, 1)
