"""Featurizers and heads: frozen settings whose call builds the module."""

from fishr.models.frozen import FrozenFeaturizer, features_by_block
from fishr.models.heads import LinearHead, MLPHead
from fishr.models.mlp import MLP

__all__ = ["MLP", "FrozenFeaturizer", "LinearHead", "MLPHead", "features_by_block"]
