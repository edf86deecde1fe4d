"""Recipes: experiments by name."""

from collections.abc import Callable

from attrs import frozen

from fishr.protocols.invariance import METHODS, colored_digits, colored_mnist
from fishr.training.experiment import Experiment


@frozen
class Recipe:
    """A named experiment and a line about it; calling it returns the experiment, with seed 0.

    Example:
        >>> recipe = recipes()["colored-digits-erm"]
        >>> recipe.description, recipe().name
        ('ERM on Colored Digits (embedded; half a minute on a CPU)', 'colored-digits-erm')
    """

    description: str
    _protocol: Callable[[str], Experiment]
    _method: str

    def __call__(self) -> Experiment:
        return self._protocol(self._method)


_PROTOCOLS: tuple[tuple[str, str, Callable[[str], Experiment]], ...] = (
    ("colored-digits", "Colored Digits (embedded; half a minute on a CPU)", colored_digits),
    ("colored-mnist", "Colored MNIST (MNIST's files; ten minutes on a CPU)", colored_mnist),
)


def recipes() -> dict[str, Recipe]:
    """Return all recipes by name, Fishr's first in each data set.

    Example:
        >>> list(recipes())[:4]
        ['colored-digits', 'colored-digits-erm', 'colored-digits-irm', 'colored-digits-vrex']
    """
    methods = ["fishr", *(name for name in METHODS if name != "fishr")]
    return {
        name if method == "fishr" else f"{name}-{method}": Recipe(
            f"{METHODS[method].title} on {title}", protocol, method
        )
        for name, title, protocol in _PROTOCOLS
        for method in methods
    }
