"""The factor that keeps a 16-bit gradient from vanishing, as explicit state."""

from attrs import frozen

FIRST, LEAST = 2.0**16, 2.0**-10
_GROWTH_AFTER = 2000


@frozen
class GradientScale:
    """What the gradient that enters a 16-bit featurizer is multiplied by.

    Args:
        value: the factor, a power of two.
        steps: updates since it last changed.

    Example:
        >>> GradientScale().after(finite=False)
        GradientScale(value=32768.0, steps=0)

    Source:
        Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2; the numbers are torch's ``GradScaler``'s.
    """

    value: float = FIRST
    steps: int = 0

    def after(self, finite: bool) -> "GradientScale":
        """Half after a gradient that is not finite, twice after 2,000 in a row that are."""
        if not finite:
            return GradientScale(self.value / 2)
        if self.steps + 1 == _GROWTH_AFTER:
            return GradientScale(self.value * 2)
        return GradientScale(self.value, self.steps + 1)
