"""Crops of 8-bit images, resized and mirrored: one by one on a CPU, a batch at once on an accelerator."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fishr.data.images.augmentation import Augmentation


def crops(images: Sequence[Tensor] | Tensor, augmentations: Sequence[Augmentation], size: int) -> Tensor:
    """Each image's crop as a square, mirrored where drawn, rounded to whole numbers as 8-bit images are.

    Args:
        images: n of [3, height, width] uint8, or one tensor of them.
        augmentations: drawn for each; their colours are not applied.
        size: side of the result, pixels.

    Returns:
        [n, 3, size, size] uint8 on the images' device.

    Example:
        >>> from fishr.data.images.augmentation import draw_augmentation
        >>> crops(torch.zeros(1, 3, 10, 20, dtype=torch.uint8), [draw_augmentation(0, 20, 10)], size=8).shape
        torch.Size([1, 3, 8, 8])

    Source:
        torchvision's resized_crop, bilinear and antialiased, and its hflip, on 8-bit tensors.
    """
    if isinstance(images, Tensor) and images.device.type != "cpu":
        return _together(images, augmentations, size)
    made = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for row, (image, drawn) in enumerate(zip(images, augmentations, strict=True)):
        cut = image[:, drawn.top : drawn.top + drawn.height, drawn.left : drawn.left + drawn.width]
        resized = F.interpolate(cut.unsqueeze(0), (size, size), mode="bilinear", antialias=True)
        made[row : row + 1] = resized.flip(3) if drawn.mirrored else resized
    return made


def _together(images: Tensor, augmentations: Sequence[Augmentation], size: int) -> Tensor:
    """Of images no larger than the result, so that every crop grows: nothing is left to antialias."""
    boxes = [(drawn.top, drawn.height, drawn.left, drawn.width) for drawn in augmentations]
    top, height, left, width = torch.tensor(boxes, dtype=torch.float32, device=images.device).unbind(1)
    mirrored = torch.tensor([drawn.mirrored for drawn in augmentations], device=images.device)
    rows, columns = _places(top, height, images.shape[2], size), _places(left, width, images.shape[3], size)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    grid = torch.stack(
        [columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)],
        dim=-1,
    )
    values = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return values.round_().to(torch.uint8)


def _places(start: Tensor, length: Tensor, whole: int, size: int) -> Tensor:
    """Where each pixel of a side lies in the image, from -1 to 1 as ``grid_sample`` counts; never beyond the crop."""
    centres = torch.arange(size, device=start.device) + 0.5
    inside = (centres * (length[:, None] / size) - 0.5).clamp_(min=0)
    pixels = start[:, None] + torch.minimum(inside, length[:, None] - 1)
    return (2 * pixels + 1) / whole - 1
