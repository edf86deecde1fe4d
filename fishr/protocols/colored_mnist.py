"""Colored MNIST: the protocol of the IRM paper, with the hyper-parameters that V-REx and Fishr share."""

from fishr.data.mnist import ColoredMNIST
from fishr.protocols.invariance import experiment
from fishr.training.experiment import Experiment

WARM_UP = 190


def colored_mnist(method: str = "fishr", label_noise: float = 0.25) -> Experiment:
    """The Colored MNIST experiment of Table 2, or without label noise that of the appendix's Table 5.

    Args:
        method: "erm", "irm", "vrex" or "fishr".
        label_noise: probability that a label is wrong.

    Returns:
        A run of about ten minutes on two CPU cores.

    Raises:
        InputError: no such method, or a probability outside 0 to 1.

    Example:
        >>> colored_mnist("vrex").objective.l2
        0.00110794568

    Source:
        Ramé, Dancette, Cord, Fishr, ICML 2022, arXiv 2109.02934, Table 2; Arjovsky et al., arXiv 1907.02893.
    """
    return experiment("colored-mnist", ColoredMNIST(label_noise=label_noise), method, WARM_UP)
