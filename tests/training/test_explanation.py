"""The lines that say what a run's loss is made of."""

import attrs
import pytest

from fishr.averages import EMA
from fishr.descents import SAM
from fishr.methods import GroupDRO
from fishr.penalties import ERM, Fishr, Joined, LinearSchedule, Scaled, StepSchedule, Total, VREx
from fishr.protocols import colored_digits
from fishr.training import Objective, loss_outline, run_outline
from fishr.transforms import Mixup

WARM_UP = Scaled(Fishr(), StepSchedule(at=60, before=0.0, after=5000.0))
RISES_AND_FALLS = Joined((LinearSchedule(0.0, 8.0, steps=10), LinearSchedule(8.0, 0.0, steps=10)), boundaries=(10,))


@pytest.mark.parametrize(
    ("objective", "steps", "lines"),
    [
        (Objective(), 9, ["loss at step 0 = risk (mean over domains)"]),
        (
            Objective(ERM(over="samples"), Total(mine=VREx()), l2=0.5),
            9,
            ["loss at step 0 = risk (mean over samples) + 0.5 · Σ‖w‖² + mine", "logged: each term times its weight"],
        ),
        (
            Objective(penalty=Total(fishr=WARM_UP, mine=Scaled(VREx(), 10.0)), rescale=True),
            100,
            [
                "loss at step 0 = (risk (mean over domains) + 0 · fishr + 10 · mine) / 10",
                "loss at step 60 = (risk (mean over domains) + 5000 · fishr + 10 · mine) / 5000",
                "logged: the loss as divided; each term times its weight, not divided",
            ],
        ),
        (
            Objective(penalty=Total(fishr=WARM_UP), rescale=True),
            60,
            ["loss at step 0 = risk (mean over domains) + 0 · fishr", "logged: each term times its weight"],
        ),
        (
            Objective(penalty=Total(rex=Scaled(VREx(), RISES_AND_FALLS))),
            10**12,
            [
                "loss at step 0 = risk (mean over domains) + 0 · rex",
                "loss at step 10 = risk (mean over domains) + 8 · rex",
                "loss at step 999999999999 = risk (mean over domains) + 0 · rex",
                "logged: each term times its weight",
            ],
        ),
    ],
)
def test_the_outline_of_a_loss(objective, steps, lines):
    assert loss_outline(objective, steps).splitlines() == lines


def test_the_outline_of_a_run_names_the_parts_of_its_steps():
    objective = Objective(risk=GroupDRO(eta=0.5), penalty=Total(rex=VREx()))
    parts = {"transform": Mixup(0.3), "descent": SAM(0.1), "average": EMA(0.9)}
    outline = run_outline(attrs.evolve(colored_digits(), objective=objective, **parts))
    assert outline.splitlines() == [
        "loss at step 0 = risk (GroupDRO) + rex",
        "logged: each term times its weight",
        "risk: GroupDRO(eta=0.5)",
        "transform: Mixup(alpha=0.3)",
        "descent: SAM(rho=0.1)",
        "average: EMA(decay=0.9, start=0), evaluated in place of the weights",
    ]
