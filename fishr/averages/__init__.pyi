from .ema import EMA
from .sma import SMA
from .soup import average_weights
from .swad import SWAD
from .weight_average import WeightAverage

__all__ = ["EMA", "SMA", "SWAD", "WeightAverage", "average_weights"]
