"""Featurizers and heads: frozen settings whose call builds the module."""

from fishr.models.dropout import FeatureDropout
from fishr.models.featurizer import Featurizer
from fishr.models.frozen import FrozenFeaturizer, features_by_block
from fishr.models.frozen_norm import freeze_norm
from fishr.models.heads import LinearHead, MLPHead
from fishr.models.mlp import MLP
from fishr.models.mnist_cnn import MNISTCNN
from fishr.models.resnet import ResNet
from fishr.models.timm_backbone import TimmBackbone
from fishr.models.wide_resnet import WideResNet

__all__ = [
    "MLP",
    "MNISTCNN",
    "FeatureDropout",
    "Featurizer",
    "FrozenFeaturizer",
    "LinearHead",
    "MLPHead",
    "ResNet",
    "TimmBackbone",
    "WideResNet",
    "features_by_block",
    "freeze_norm",
]
