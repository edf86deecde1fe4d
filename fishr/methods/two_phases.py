"""ERM++ and LP-FT: the head alone first, then the whole network."""

from typing import Any

from fishr.averages.sma import SMA
from fishr.methods.method import Hparams, Method
from fishr.methods.ranges import Range, choice, fixed, power
from fishr.penalties.schedules import StepSchedule
from fishr.training.objective import Objective

# Updates made before the first weights of ERM++'s mean; DomainBed's 600 counts the update after them.
AVERAGED_FROM = 599


def _rates(at: int, head_lr: float, h: Hparams) -> dict[str, Any]:
    featurizer = StepSchedule(at=at, before=0.0, after=1.0)
    return {"featurizer": featurizer, "head": StepSchedule(at=at, before=head_lr / h["lr"], after=1.0)}


METHODS = {
    "ERMPlusPlus": Method(
        {"linear_lr": Range(5e-5, power(-5, -3.5)), "linear_steps": fixed(500)},
        # DomainBed trains the head alone while the updates made are at most linear_steps.
        lambda h: Objective(fresh_optimizer_at=h["linear_steps"] + 1),
        lambda h: {
            "lr_factors": _rates(h["linear_steps"] + 1, h["linear_lr"], h),
            "average": SMA(start=AVERAGED_FROM, own_statistics=True),
        },
    ),
    "LP_FT": Method(
        {"lp_lr": Range(1e-3, power(-4, -2)), "lp_steps": Range(500, choice((250, 500, 1000)))},
        lambda h: Objective(fresh_optimizer_at=h["lp_steps"]),
        lambda h: {"lr_factors": _rates(h["lp_steps"], h["lp_lr"], h)},
    ),
}
