"""A strip of colored images, sorted by domain and label."""

from collections.abc import Sequence

import numpy as np
from attrs import frozen
from matplotlib.axes import Axes
from torch import Tensor

from fishr.data.domains import Domain

# Two colors that color-blind people tell apart and that add up to white, so that an image in both is gray.
_CHANNELS = np.array([(0.0, 0.4, 1.0), (1.0, 0.6, 0.0)])
_EACH, _GAP, _HEADING = 5, 0.4, 0.7


@frozen(eq=False)
class Group:
    """Domains under one heading, with the color that stands for them elsewhere in the figure."""

    heading: str
    color: str
    domains: tuple[Domain, ...]


def draw_samples(axes: Axes, groups: Sequence[Group], note: str) -> None:
    """Draw the first images of each domain in a row: label "below five" on the left, "five and above" on the right.

    Args:
        axes: one unit is made an image.
        groups: from top to bottom; inputs [N, 2, H, W] from 0 to 1, labels 1 (digit below five) and 0.
        note: below the images.
    """
    right = _EACH + _GAP
    for left, label in ((0, "label 0 to 4: orange"), (right, "label 5 to 9: blue")):
        axes.text(left + _EACH / 2, 0, label, ha="center", va="bottom", fontsize=10)
    top = 0.0
    for group in groups:
        axes.text(0, top + 0.55, "■", color=group.color, fontsize=11)
        axes.text(0.5, top + 0.55, group.heading, fontsize=10)
        top += _HEADING
        for domain in group.domains:
            for left, label in ((0, 1), (right, 0)):
                _draw_label(axes, domain, label, left, top)
            top += 1
    axes.text(0, top + 0.2, note, va="top", fontsize=10)
    axes.set_xlim(0, right + _EACH)
    axes.set_ylim(top + 1.2, -0.5)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _draw_label(axes: Axes, domain: Domain, label: int, left: float, top: float) -> None:
    """Draw the first images of one label, from (left, top) to the right."""
    assert isinstance(domain.inputs, Tensor)
    for place, image in enumerate(domain.inputs[domain.labels == label][:_EACH]):
        x = left + place
        axes.imshow(_painted(image), extent=(x + 0.03, x + 0.97, top + 0.97, top + 0.03))


def _painted(image: Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    """Return an image [2, H, W] as RGB [H, W, 3]."""
    return np.einsum("chw,cr->hwr", image.double().numpy(), _CHANNELS).clip(0, 1)
