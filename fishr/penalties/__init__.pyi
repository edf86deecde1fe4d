from .combinators import Scaled, Stateless, Term, Total
from .erm import ERM
from .explain import Explanation, TermExplanation, explain
from .fishr import Fishr
from .irm import IRM
from .moving_average import Average, MovingAverage
from .penalty import Penalty, Risk
from .penalty_module import PenaltyModule
from .schedules import (
    Constant,
    CosineSchedule,
    Joined,
    LinearSchedule,
    Product,
    Schedule,
    StepSchedule,
)
from .vrex import VREx

__all__ = [
    "ERM",
    "IRM",
    "Average",
    "Constant",
    "CosineSchedule",
    "Explanation",
    "Fishr",
    "Joined",
    "LinearSchedule",
    "MovingAverage",
    "Penalty",
    "PenaltyModule",
    "Product",
    "Risk",
    "Scaled",
    "Schedule",
    "Stateless",
    "StepSchedule",
    "Term",
    "TermExplanation",
    "Total",
    "VREx",
    "explain",
]
