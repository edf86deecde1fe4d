"""Color jitter of a batch of images, each with its own draw, and normalization, on the model's device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fishr.data.images.domainbed_augmentation import DrawnAugmentation
from fishr.data.images.preprocessing import Preprocessing

LUMA = (0.2989, 0.587, 0.114)


def jitter_colors(
    images: Tensor, augmentations: Sequence[DrawnAugmentation], preprocessing: Preprocessing, out: Tensor | None = None
) -> Tensor:
    """Jitter the colors of uint8 crops, each in its own order, and normalize them; return float32, in ``out``."""
    made = torch.empty(images.shape, device=images.device) if out is None else out
    mean, std = preprocessing.mean, preprocessing.std
    numbers = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    scale, shift = (torch.tensor(each, device=images.device).view(3, 1, 1) for each in numbers)
    if images.device.type == "cpu":
        # One image stays in a processor's cache from one change to the next.
        for image, values, drawn in zip(images, made, augmentations, strict=True):
            _jitter(values.copy_(image), drawn).mul_(scale).add_(shift)
        return made
    return made.copy_(jitter_together(images, augmentations)).mul_(scale).add_(shift)


def _jitter(values: Tensor, drawn: DrawnAugmentation) -> Tensor:
    """Jitter the colors of one image, from 0 to 255, in place."""
    for kind, factor in drawn.jitters:
        if kind == "hue":
            _turn(values, torch.tensor(factor))
            continue
        if kind == "brightness":
            values.mul_(factor)
            if factor <= 1:
                continue
        elif kind == "contrast":
            gray = (values.mean((1, 2)) * torch.tensor(LUMA)).sum().mul_(1 - factor)
            values.mul_(factor).add_(gray)
        else:
            gray = _gray(values).mul_(1 - factor)
            values.mul_(factor).add_(gray)
        values.clamp_(0, 255)
    return values.copy_(_gray(values)) if drawn.gray else values


def jitter_together(images: Tensor, augmentations: Sequence[DrawnAugmentation]) -> Tensor:
    """Jitter the colors of uint8 images, at least one, with few kernels; return float32 from 0 to 255."""
    # Brightness, contrast and saturation are three rounds of one blend of the whole batch; the hue turns before the
    # round given by the image's order. So each image has four changes instead of four of each. Images of one order are
    # adjacent, so that hues turn in few runs.
    order = sorted(range(len(augmentations)), key=lambda row: _order(augmentations[row]))
    place, augmentations = torch.tensor(order, device=images.device), [augmentations[row] for row in order]
    values = images.index_select(0, place).float()
    angles = torch.tensor([dict(drawn.jitters)["hue"] for drawn in augmentations], device=images.device)
    blends = [[jitter for jitter in drawn.jitters if jitter[0] != "hue"] for drawn in augmentations]
    rounds = list(zip(*blends, strict=True))
    runs = _runs([_order(drawn)[:2] for drawn in augmentations])
    for number in range(len(rounds) + 1):
        for start, stop, (_, position) in runs:
            if position == number:
                _turn(values[start:stop], angles[start:stop].view(-1, 1, 1))
        if number < len(rounds):
            _blend(values, rounds[number])
    gray = sum(drawn.gray for drawn in augmentations)
    values[:gray] = _gray(values[:gray])
    return torch.empty_like(values).index_copy_(0, place, values)


def _order(drawn: DrawnAugmentation) -> tuple[bool, int, tuple[str, ...]]:
    """Sort key: gray images first, then the position of the hue."""
    names = tuple(name for name, _ in drawn.jitters)
    return not drawn.gray, names.index("hue"), names


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
    red, green, blue = values.split(1, -3)
    gray, part = red * LUMA[0], green * LUMA[1]
    return gray.add_(part).add_(torch.mul(blue, LUMA[2], out=part))


def _turn(values: Tensor, angles: Tensor) -> None:
    """Change the hue in place, by at most a third of the circle."""
    # On a circle of length 6 with red at 0, green at 2 and blue at 4, a color of largest channel M, smallest m and
    # chroma C = M − m has the hue (M − R + G + B − 2m) / C from red, toward green if G ≥ B. A channel is m − C +
    # C · min(max(d, 1), 2), where d is the distance of the hue from the opposite of the channel, plus or minus 3.
    red, green, blue = values.unbind(-3)
    largest, smallest = torch.maximum(red, green), torch.minimum(red, green)
    torch.maximum(largest, blue, out=largest)
    torch.minimum(smallest, blue, out=smallest)
    hue = green + blue
    # From here on, the channels hold what comes next.
    hue.sub_(smallest, alpha=2).sub_(red).add_(largest).copysign_(green.sub_(blue))
    chroma = largest.sub_(smallest)
    # Without color, the numerator is 0 too.
    hue.div_(torch.clamp(chroma, min=1e-30, out=blue)).add_(angles * 6)
    below = smallest.sub_(chroma)
    places = torch.tensor((0.0, 2.0, -2.0), device=values.device).view(3, 1, 1)
    torch.sub(hue.unsqueeze(-3), places, out=values).abs_().sub_(3).abs_().clamp_(1, 2)
    values.mul_(chroma.unsqueeze(-3)).add_(below.unsqueeze(-3))
