"""Colored Digits: the IRM paper's coloring protocol on scikit-learn's handwritten digits."""

from fishr.data.digits import ColoredDigits
from fishr.protocols.invariance import experiment
from fishr.training.experiment import Experiment

DATA = ColoredDigits(training_images=1300, copies=5)
STEPS = 240
WARM_UP = 120


def colored_digits(method: str = "fishr") -> Experiment:
    """The protocol of Colored MNIST on 8×8 digits that need no download.

    The 1,300 training images make 6,500 samples. Of 240 steps, the first 120 are the warm-up.

    Args:
        method: "erm", "irm", "vrex" or "fishr".

    Returns:
        A run of about half a minute on a CPU.

    Raises:
        InputError: no such method.

    Example:
        >>> colored_digits().steps, colored_digits("erm").name
        (240, 'colored-digits-erm')
    """
    return experiment("colored-digits", DATA, method, WARM_UP, STEPS)
