"""Named recipes: functions that return complete experiments."""

from fishr.protocols.colored_digits import colored_digits
from fishr.protocols.colored_mnist import colored_mnist
from fishr.protocols.recipes import Recipe, recipes

__all__ = ["Recipe", "colored_digits", "colored_mnist", "recipes"]
