"""Penalties, their schedules and combinators: a frozen configuration that is the function, state passed explicitly."""

from fishr.penalties.combinators import Scaled, Stateless, Term, Total
from fishr.penalties.erm import ERM
from fishr.penalties.explain import Explanation, TermExplanation, explain
from fishr.penalties.fishr import Fishr
from fishr.penalties.irm import IRM
from fishr.penalties.moving_average import Average, MovingAverage
from fishr.penalties.penalty import Penalty, Risk
from fishr.penalties.penalty_module import PenaltyModule
from fishr.penalties.schedules import (
    Constant,
    CosineSchedule,
    Joined,
    LinearSchedule,
    Product,
    Schedule,
    StepSchedule,
)
from fishr.penalties.vrex import VREx

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
