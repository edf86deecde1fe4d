"""Color jitter of a batch of images, each with its own draw, and normalization, on the model's device."""

from collections.abc import Sequence
from operator import mul

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
    scale, shift = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    if images.device.type == "cpu":
        _jitter_each(images, augmentations, scale, shift, made)
        return made
    factor, offset = (torch.tensor(each, device=images.device).view(3, 1, 1) for each in (scale, shift))
    return made.copy_(jitter_together(images, augmentations)).mul_(factor).add_(offset)


def _jitter_each(
    images: Tensor, augmentations: Sequence[DrawnAugmentation], scale: list[float], shift: list[float], out: Tensor
) -> None:
    """Jitter the colors of one image after another into ``out``, then scale and shift its channels."""
    # One image stays in a processor's cache from one change to the next. Each call of torch is one where threads wait
    # for each other, so one matrix product turns the hue, and another makes gray.
    pixels, luma, turns = images.shape[2:].numel(), torch.tensor([LUMA]), _turns(augmentations)
    colors_and_range, gray = torch.empty(5, pixels), torch.empty(1, pixels)
    colors, high, low = colors_and_range[:3], colors_and_range[3], colors_and_range[4]
    for image, made, drawn, turn in zip(images.flatten(2), out.view(-1, 3, pixels), augmentations, turns, strict=True):
        # Brightness and contrast change factor and offset, which lead from the values to 0 to 255. A blend with a
        # factor of at most 1 stays in range.
        values, factor, offset = colors.copy_(image), 1.0, 0.0
        for kind, own in drawn.jitters:
            if kind == "hue":
                torch.amax(values, 0, out=high)
                torch.amin(values, 0, out=low)
                values = torch.mm(turn, colors_and_range, out=made).clamp_(low, high)
                continue
            if kind == "brightness":
                offset *= own
            elif kind == "contrast":
                mean = sum(map(mul, values.sum(1).tolist(), LUMA)) / pixels * factor + offset * sum(LUMA)
                offset = offset * own + mean * (1 - own)
            else:
                values.add_(torch.mm(luma, values, out=gray), alpha=(1 - own) / own)
                offset *= own + (1 - own) * sum(LUMA)
            factor *= own
            if own > 1:
                values.clamp_(-offset / factor, (255 - offset) / factor)
        if drawn.gray:
            values, offset = torch.mm(luma, values, out=gray), offset * sum(LUMA)
        line = torch.tensor(
            [[[s * factor] for s in scale], [[s * offset + b] for s, b in zip(scale, shift, strict=True)]]
        )
        torch.mul(values, line[0], out=made).add_(line[1])


def _turns(augmentations: Sequence[DrawnAugmentation]) -> Tensor:
    """Return matrices [n, 3, 5] that turn the hue of red, green, blue, their maximum and minimum, as ``_turn``."""
    # The middle channel is the sum of the three less maximum and minimum.
    turns = list[list[list[float]]]()
    for drawn in augmentations:
        thirds, rest = _thirds(dict(drawn.jitters)["hue"])
        middle = abs(rest) - 1
        circle = [1.0, middle - rest, middle + rest] * 2
        starts = (thirds % 3, (thirds - 1) % 3, (thirds - 2) % 3)
        turns.append([[*circle[start : start + 3], -middle, -middle] for start in starts])
    return torch.tensor(turns).view(-1, 3, 5)


def jitter_together(images: Tensor, augmentations: Sequence[DrawnAugmentation]) -> Tensor:
    """Jitter the colors of uint8 images, at least one, with few kernels; return float32 from 0 to 255."""
    # Brightness, contrast and saturation are three rounds of one blend of the whole batch; the hue turns before the
    # round given by the image's order. So each image has four changes instead of four of each. Images whose hue turns
    # before the same round are adjacent.
    turning = [[name for name, _ in drawn.jitters].index("hue") for drawn in augmentations]
    order = sorted(range(len(augmentations)), key=turning.__getitem__)
    device, augmentations = images.device, [augmentations[row] for row in order]
    place = torch.tensor(order, device=device)
    thirds, turns = zip(*(_thirds(dict(drawn.jitters)["hue"]) for drawn in augmentations), strict=True)
    sources = (torch.arange(3) - torch.tensor(thirds)[:, None]).remainder(3).view(-1, 3, 1, 1).to(device)
    rest = torch.tensor(turns, device=device).view(-1, 1, 1)
    values = images.index_select(0, place).to(torch.float32, memory_format=torch.contiguous_format)
    blends = [[jitter for jitter in drawn.jitters if jitter[0] != "hue"] for drawn in augmentations]
    start = 0
    for number, jitters in enumerate([*zip(*blends, strict=True), None]):
        stop = start + turning.count(number)
        if stop > start:
            part = values[start:stop]
            turned = part.take_along_dim(sources[start:stop], 1)
            _turn(turned.unbind(1), rest[start:stop], part.unbind(1))
        if jitters is not None:
            _blend(values, jitters)
        start = stop
    if gray := [row for row, drawn in enumerate(augmentations) if drawn.gray]:
        rows = torch.tensor(gray, device=device)
        values[rows] = _gray(values[rows].split(1, 1))
    return torch.empty_like(values).index_copy_(0, place, values)


def _blend(values: Tensor, jitters: Sequence[tuple[str, float]]) -> None:
    """Mix each image with black, its mean gray or its own gray image, by its factor."""
    kinds = {kind for kind, _ in jitters}
    table = [[f, (1 - f) * (kind == "saturation"), (1 - f) * (kind == "contrast")] for kind, f in jitters]
    factor, own, mean = torch.tensor(table, device=values.device).view(-1, 3, 1, 1, 1).unbind(1)
    others = list[Tensor]()
    if "saturation" in kinds:
        others.append(_gray(values.split(1, 1)).mul_(own))
    if "contrast" in kinds:
        channels = values.mean((2, 3))
        others.append((channels * torch.tensor(LUMA, device=values.device)).sum(1).view(-1, 1, 1, 1) * mean)
    values.mul_(factor)
    for other in others:
        values.add_(other)
    values.clamp_(0, 255)


def _gray(planes: Sequence[Tensor]) -> Tensor:
    """Return the gray image of red, green and blue."""
    red, green, blue = planes
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _thirds(hue: float) -> tuple[int, float]:
    """Return a turn as thirds of the circle, which move each channel to the next, and the rest in sixths, -1 to 1."""
    return round(3 * hue), 6 * hue - 2 * round(3 * hue)


def _turn(planes: Sequence[Tensor], rest: Tensor, out: Sequence[Tensor]) -> None:
    """Turn the hue of red, green and blue, already moved by thirds, by ``rest`` sixths; ``out`` may be the same."""
    # Let l ≤ m ≤ h be the channels of a pixel in order. A turn by r from -1 to 1, from red toward green, makes of red:
    # m + (2 − |r|) (red − m) + r (blue − green), but at least l and at most h.
    red, green, blue = planes
    high, low = torch.maximum(red, green), torch.minimum(red, green)
    middle = torch.clamp(blue, low, high)
    torch.maximum(high, blue, out=high)
    torch.minimum(low, blue, out=low)
    weight, turned = 2 - abs(rest), list[Tensor]()
    for before, own, after in ((blue, red, green), (red, green, blue), (green, blue, red)):
        turned.append(torch.lerp(middle, own, weight).add_((before - after).mul_(rest)))
    for plane, made in zip(out, turned, strict=True):
        torch.clamp(made, low, high, out=plane)
