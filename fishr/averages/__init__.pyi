from .ema import EMA
from .sma import SMA
from .weight_average import WeightAverage

__all__ = ["EMA", "SMA", "WeightAverage"]
