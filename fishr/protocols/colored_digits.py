"""Colored Digits: the IRM paper's colouring protocol on scikit-learn's handwritten digits."""

from fishr.data.digits import ColoredDigits
from fishr.protocols.invariance import experiment
from fishr.training.experiment import Experiment

WARM_UP = 60


def colored_digits(method: str = "fishr") -> Experiment:
    """The protocol of Colored MNIST on 8×8 digits that need no download, with a warm-up of 60 steps.

    Args:
        method: "erm", "irm", "vrex" or "fishr".

    Returns:
        A run of a few seconds on a CPU.

    Raises:
        InputError: no such method.

    Example:
        >>> colored_digits().steps, colored_digits("erm").name
        (501, 'colored-digits-erm')
    """
    return experiment("colored-digits", ColoredDigits(), method, WARM_UP)
