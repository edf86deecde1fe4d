"""The IRM paper's coloring protocol, the same for every method: penalties, weights, network, optimizer."""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from fishr.data.batches import FullBatch
from fishr.data.digits import ColoredDigits
from fishr.data.mnist import ColoredMNIST
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

LEARNING_RATE = 0.0004898536566546834
L2 = 0.00110794568
WEIGHT = 91257.18613115903
STEPS = 501


@frozen
class Method:
    """A training method of the protocol: its penalty, and its name for people.

    Example:
        >>> METHODS["vrex"].title
        'V-REx'
    """

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


def objective(method: str, warm_up: int) -> Objective:
    """The protocol's objective: penalty weight 1 until the warm-up ends, then 91,257 with rescaling.

    Args:
        method: "erm", "irm", "vrex" or "fishr".
        warm_up: step at which the weight rises.

    Returns:
        For "erm" the risk and weight decay alone.

    Raises:
        InputError: no such method.

    Example:
        >>> objective("fishr", warm_up=190).penalty.terms["fishr"].schedule(190)
        91257.18613115903
    """
    if method not in METHODS:
        raise InputError(f"method: got {method!r}, expected {', '.join(METHODS)}")
    penalty = METHODS[method].penalty
    if penalty is None:
        return Objective(risk=ERM(over="domains"), l2=L2)
    scaled = Scaled(penalty, StepSchedule(at=warm_up, before=1.0, after=WEIGHT))
    return Objective(risk=ERM(over="domains"), penalty=Total(**{method: scaled}), l2=L2, rescale=True)


def experiment(
    name: str, data: ColoredDigits | ColoredMNIST, method: str, warm_up: int, steps: int = STEPS
) -> Experiment:
    """The protocol on a data set.

    Args:
        name: of the data set; the experiment of "fishr" is called that, others have the method's name added.
        data: colored images with two labels.
        method: "erm", "irm", "vrex" or "fishr".
        warm_up: step at which the penalty's weight rises.
        steps: number of training steps.

    Returns:
        Full-batch training of an MLP 390-390-1 by Adam.

    Raises:
        InputError: no such method.

    Example:
        >>> experiment("digits", ColoredDigits(), "irm", warm_up=60).name
        'digits-irm'
    """
    return Experiment(
        name=name if method == "fishr" else f"{name}-{method}",
        data=data,
        featurizer=MLP(widths=(390, 390)),
        head=LinearHead(),
        loss=BinaryCrossEntropy(),
        objective=objective(method, warm_up),
        optimizer=Adam(lr=LEARNING_RATE),
        batches=FullBatch(),
        steps=steps,
        evaluate_every=25,
    )
