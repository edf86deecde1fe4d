"""Methods that are a transform, a descent or an average, whose mathematics are in the packages of these names."""

from fishr.averages.ema import EMA
from fishr.averages.sma import SMA
from fishr.averages.swad import SWAD
from fishr.descents.and_mask import ANDMask
from fishr.descents.fish import Fish
from fishr.descents.gga_l import GGAL
from fishr.descents.iga import IGA
from fishr.descents.mldg import MLDG
from fishr.descents.pcgrad import PCGrad
from fishr.descents.sagm import SAGM
from fishr.descents.sam import SAM
from fishr.descents.sand_mask import SANDMask
from fishr.methods.method import Method
from fishr.methods.ranges import Range, choice, fixed, power, uniform
from fishr.transforms.mixup import Mixup

METHODS = {
    "ANDMask": Method(
        {"tau": Range(1.0, uniform(0.5, 1.0))},
        changes=lambda h: {"descent": ANDMask(h["tau"])},
    ),
    "EMA": Method(
        {"ema_decay": Range(0.999, choice((0.99, 0.995, 0.999)))},
        changes=lambda h: {"average": EMA(h["ema_decay"])},
    ),
    "Fish": Method(
        {"meta_lr": Range(0.5, choice((0.05, 0.1, 0.5)))},
        changes=lambda h: {"descent": Fish(h["meta_lr"])},
    ),
    "GGA_L": Method(
        {"gga_gamma": Range(1e-3, power(-4, -2))},
        changes=lambda h: {"descent": GGAL(h["gga_gamma"])},
    ),
    "IGA": Method(
        {"penalty": Range(1000.0, power(1, 5))},
        changes=lambda h: {"descent": IGA(h["penalty"])},
    ),
    "MLDG": Method(
        {"mldg_beta": Range(1.0, power(-1, 1)), "n_meta_test": Range(2, choice((1, 2)))},
        changes=lambda h: {"descent": MLDG(h["mldg_beta"], h["n_meta_test"])},
    ),
    "PCGrad": Method(changes=lambda h: {"descent": PCGrad()}),
    "SAGM": Method(
        {"sagm_rho": Range(0.05, choice((0.01, 0.02, 0.05, 0.1))), "sagm_alpha": Range(1e-3, power(-4, -2))},
        changes=lambda h: {"descent": SAGM(h["sagm_rho"], h["sagm_alpha"])},
    ),
    "SAM": Method(
        {"sam_rho": Range(0.05, choice((0.01, 0.02, 0.05, 0.1)))},
        changes=lambda h: {"descent": SAM(h["sam_rho"])},
    ),
    "SANDMask": Method(
        {"tau": Range(1.0, uniform(0.0, 1.0)), "k": Range(1e1, power(-3, 5))},
        changes=lambda h: {"descent": SANDMask(h["tau"], h["k"])},
    ),
    "SMA": Method(
        {"sma_start": fixed(100)},
        changes=lambda h: {"average": SMA(h["sma_start"])},
    ),
    "SWAD": Method(
        {"swad_ratio": fixed(0.3)},
        changes=lambda h: {"average": SWAD(ratio=h["swad_ratio"])},
        # The authors' values.
        ranges_of=lambda dataset: {"swad_ratio": fixed(0.2)} if dataset == "VLCS" else {},
    ),
    "Mixup": Method(
        {"mixup_alpha": Range(0.2, power(-1, 1))},
        changes=lambda h: {"transform": Mixup(h["mixup_alpha"])},
        passes="domain",
    ),
}
