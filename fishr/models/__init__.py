"""Featurizers and heads: frozen settings whose call builds the module."""

from fishr.models.heads import LinearHead, MLPHead
from fishr.models.mlp import MLP

__all__ = ["MLP", "LinearHead", "MLPHead"]
