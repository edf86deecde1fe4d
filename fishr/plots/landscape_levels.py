"""Shared colours and levels of landscapes: what differs between pictures then differs between domains."""

import numpy as np
from attrs import frozen
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FixedLocator, Formatter, FuncFormatter, Locator, MaxNLocator, NullLocator
from numpy.typing import NDArray

Array = NDArray[np.float64]

COLORMAP = "viridis"
_COUNT = 31
# Beyond this ratio of the highest to the lowest risk, even steps would leave the valley a single colour.
_LOGARITHMIC = 8.0
# A random direction may lead to risks beyond all measure; what exceeds this share of the grid has the top colour.
_SHOWN = 0.97
_SMALLEST = 1e-4


@frozen(eq=False)
class Levels:
    """Risks between which the colours change.

    Args:
        edges: ascending, at least two.
        logarithmic: whether they are spaced by ratio.
        above: whether some risks lie above the last.
    """

    edges: Array
    logarithmic: bool
    above: bool

    @property
    def norm(self) -> Normalize:
        """From risks to colours."""
        kind = LogNorm if self.logarithmic else Normalize
        return kind(self.edges[0], self.edges[-1], clip=True)

    @property
    def extend(self) -> str:
        """How a colour bar ends."""
        return "max" if self.above else "neither"

    @property
    def ticks(self) -> Locator:
        """Of a colour bar: a handful, all within the edges."""
        low, high = self.edges[0], self.edges[-1]
        if not self.logarithmic:
            return MaxNLocator(6)
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        inside = [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]
        # Of more than two decades, the powers of ten alone.
        return FixedLocator(inside if len(inside) <= 7 else [tick for tick in inside if f"{tick:e}"[0] == "1"])

    @property
    def format(self) -> Formatter:
        """Of ticks: plain numbers."""
        return FuncFormatter(lambda value, _: f"{value:g}")

    @property
    def minor(self) -> Locator:
        """No small ticks."""
        return NullLocator()

    def shown(self, risks: Array) -> Array:
        """Risks as contours can take them: none below the lowest level, those not evaluated masked."""
        return np.ma.masked_invalid(np.maximum(risks, self.edges[0]))


def shared_levels(risks: Array) -> Levels:
    """Levels that serve all domains at once.

    Args:
        risks: of all domains and, in a film, all frames; NaN where not evaluated.

    Returns:
        Levels from the lowest risk to about the highest; spaced by ratio where the risks span nearly a decade.

    Example:
        >>> levels = shared_levels(np.array([0.0, 1.0, 2.0, 3.0]))
        >>> levels.logarithmic, bool(levels.edges[0] > 0)
        (True, True)
    """
    finite = risks[np.isfinite(risks)]
    if not finite.size:
        return Levels(np.linspace(0, 1, _COUNT), logarithmic=False, above=False)
    highest = float(np.quantile(finite, _SHOWN))
    # The cap is for outliers: a plain bowl is shown to its rim.
    highest = float(finite.max()) if finite.max() < 3 * highest else highest
    lowest = float(finite.min())
    if lowest < 0 or highest <= _LOGARITHMIC * max(lowest, 0.0) or highest <= _SMALLEST:
        highest = highest if highest > lowest else lowest + 1e-6 + 1e-3 * abs(lowest)
        return Levels(np.linspace(lowest, highest, _COUNT), logarithmic=False, above=bool(finite.max() > highest))
    # Zeros have no place on a logarithmic scale: they take the lowest colour.
    lowest = max(lowest, _SMALLEST * highest)
    return Levels(np.geomspace(lowest, highest, _COUNT), logarithmic=True, above=bool(finite.max() > highest))
