"""Mixup, ANDMask and Fish as methods; their mathematics are in ``fishr.transforms`` and ``fishr.descents``."""

from fishr.descents.and_mask import ANDMask
from fishr.descents.fish import Fish
from fishr.methods.method import Method
from fishr.methods.ranges import Range, choice, power, uniform
from fishr.transforms.mixup import Mixup

METHODS = {
    "ANDMask": Method(
        {"tau": Range(1.0, uniform(0.5, 1.0))},
        changes=lambda h: {"descent": ANDMask(h["tau"])},
    ),
    "Fish": Method(
        {"meta_lr": Range(0.5, choice((0.05, 0.1, 0.5)))},
        changes=lambda h: {"descent": Fish(h["meta_lr"])},
    ),
    "Mixup": Method(
        {"mixup_alpha": Range(0.2, power(-1, 1))},
        changes=lambda h: {"transform": Mixup(h["mixup_alpha"])},
    ),
}
