from .and_mask import ANDMask
from .descent import Descended, Descent, Gradients, Measured, NamedOptimizer
from .fish import Fish
from .sam import SAM

__all__ = ["SAM", "ANDMask", "Descended", "Descent", "Fish", "Gradients", "Measured", "NamedOptimizer"]
