from .and_mask import ANDMask
from .descent import Descended, Descent, Gradients, Measured, NamedOptimizer
from .fish import Fish
from .gga_l import GGAL
from .iga import IGA
from .mldg import MLDG
from .pcgrad import PCGrad
from .sagm import SAGM
from .sam import SAM
from .sand_mask import SANDMask

__all__ = [
    "GGAL",
    "IGA",
    "MLDG",
    "SAGM",
    "SAM",
    "ANDMask",
    "Descended",
    "Descent",
    "Fish",
    "Gradients",
    "Measured",
    "NamedOptimizer",
    "PCGrad",
    "SANDMask",
]
