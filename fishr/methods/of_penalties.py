"""ERM, Fishr, IRM and V-REx as methods; their mathematics are in ``fishr.penalties``."""

from fishr.methods.method import Method, after_warm_up
from fishr.methods.ranges import Range, power, uniform, whole
from fishr.penalties.fishr import Fishr
from fishr.penalties.irm import IRM
from fishr.penalties.vrex import VREx

METHODS = {
    "ERM": Method(),
    "Fishr": Method(
        {
            "lambda": Range(1000.0, power(1, 4)),
            "penalty_anneal_iters": Range(1500, whole(uniform(0, 5000))),
            "ema": Range(0.95, uniform(0.90, 0.99)),
        },
        lambda h: after_warm_up("fishr", Fishr(ema=h["ema"]), h["penalty_anneal_iters"], h["lambda"]),
    ),
    "IRM": Method(
        {
            "irm_lambda": Range(1e2, power(-1, 5)),
            "irm_penalty_anneal_iters": Range(500, whole(power(0, 4))),
        },
        lambda h: after_warm_up("irm", IRM("half_batches"), h["irm_penalty_anneal_iters"], h["irm_lambda"], before=1.0),
    ),
    "VREx": Method(
        {
            "vrex_lambda": Range(1e1, power(-1, 5)),
            "vrex_penalty_anneal_iters": Range(500, whole(power(0, 4))),
        },
        lambda h: after_warm_up("vrex", VREx(), h["vrex_penalty_anneal_iters"], h["vrex_lambda"], before=1.0),
    ),
}
