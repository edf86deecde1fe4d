"""The IRM paper's coloring protocol: one network, optimizer and objective for every method and data set."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from attrs import frozen

from fishr.data.batches import FullBatch
from fishr.errors import InputError
from fishr.losses import BinaryCrossEntropy
from fishr.models.featurizers import MLP
from fishr.models.heads import LinearHead
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.erm import ERM
from fishr.penalties.fishr import Fishr
from fishr.penalties.irm import IRM
from fishr.penalties.schedules import StepSchedule
from fishr.penalties.vrex import VREx
from fishr.training.experiment import Experiment
from fishr.training.objective import Objective
from fishr.training.optimizers import Adam

if TYPE_CHECKING:
    from fishr.data.digits import ColoredDigits
    from fishr.data.mnist import ColoredMNIST

LEARNING_RATE = 0.0004898536566546834
L2 = 0.00110794568
WEIGHT = 91257.18613115903


@frozen
class Method:
    """A training method of the protocol: its name in tables, and its penalty."""

    title: str
    penalty: Fishr | IRM | VREx | None


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "erm": Method("ERM", None),
        "irm": Method("IRM", IRM(form="squared")),
        "vrex": Method("V-REx", VREx(form="pairwise")),
        "fishr": Method("Fishr", Fishr(ema=0.0, over_parameters="sum", over_domains="sum")),
    }
)


def colored_digits(method: str = "fishr") -> Experiment:
    """Return the Colored MNIST protocol on 8×8 digits that need no download; a run of about half a minute on a CPU.

    The 1,300 training images make 6,500 samples. Of 240 steps, the first 120 are the warm-up. ``method`` is "erm",
    "irm", "vrex" or "fishr".

    Raises:
        InputError: The method is unknown.

    Example:
        >>> colored_digits().steps, colored_digits("erm").name
        (240, 'colored-digits-erm')
    """
    # Each recipe imports its own data set only.
    from fishr.data.digits import ColoredDigits

    return _experiment("colored-digits", ColoredDigits(training_images=1300, copies=5), method, warm_up=120, steps=240)


def colored_mnist(method: str = "fishr", label_noise: float = 0.25) -> Experiment:
    """Return the Colored MNIST experiment of Table 2, or without label noise that of the appendix's Table 5.

    ``label_noise`` is the probability that a label is wrong. A run takes about ten minutes on two CPU cores.

    Raises:
        InputError: The method is unknown, or the probability is outside 0 to 1.

    Example:
        >>> colored_mnist("vrex").objective.l2
        0.00110794568

    Source:
        Ramé, Dancette, Cord, Fishr, ICML 2022, arXiv 2109.02934, Table 2; Arjovsky et al., arXiv 1907.02893.
    """
    from fishr.data.mnist import ColoredMNIST

    return _experiment("colored-mnist", ColoredMNIST(label_noise=label_noise), method, warm_up=190, steps=501)


def _experiment(
    dataset: str, data: "ColoredDigits | ColoredMNIST", method: str, warm_up: int, steps: int
) -> Experiment:
    return Experiment(
        name=dataset if method == "fishr" else f"{dataset}-{method}",
        data=data,
        featurizer=MLP(widths=(390, 390)),
        head=LinearHead(),
        loss=BinaryCrossEntropy(),
        objective=_objective(method, warm_up),
        optimizer=Adam(lr=LEARNING_RATE),
        batches=FullBatch(),
        steps=steps,
        evaluate_every=25,
    )


def _objective(method: str, warm_up: int) -> Objective:
    """Return the method's objective: penalty weight 1 until the warm-up ends, then 91,257 with rescaling."""
    if method not in METHODS:
        raise InputError(f"method: got {method!r}, expected {', '.join(METHODS)}")
    penalty = METHODS[method].penalty
    if penalty is None:
        return Objective(risk=ERM(over="domains"), l2=L2)
    scaled = Scaled(penalty, StepSchedule(at=warm_up, before=1.0, after=WEIGHT))
    return Objective(risk=ERM(over="domains"), penalty=Total(**{method: scaled}), l2=L2, rescale=True)
