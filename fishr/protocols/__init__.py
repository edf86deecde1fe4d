"""Named recipes: functions that return complete experiments."""

from fishr.protocols.invariance import colored_digits, colored_mnist
from fishr.protocols.recipes import Recipe, recipes

__all__ = ["Recipe", "colored_digits", "colored_mnist", "recipes"]
