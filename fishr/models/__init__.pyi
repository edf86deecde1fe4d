from .featurizers import MLP, MNISTCNN, FeatureDropout, Featurizer, FunctionFeaturizer
from .frozen import FrozenFeaturizer, features_by_block, freeze_layers, freeze_norm
from .heads import Head, LabelHead, LinearHead, MLPHead
from .resnet import ResNet
from .timm_backbone import TimmBackbone, timm_preprocessing
from .wide_resnet import WideResNet

__all__ = [
    "MLP",
    "MNISTCNN",
    "FeatureDropout",
    "Featurizer",
    "FrozenFeaturizer",
    "FunctionFeaturizer",
    "Head",
    "LabelHead",
    "LinearHead",
    "MLPHead",
    "ResNet",
    "TimmBackbone",
    "WideResNet",
    "features_by_block",
    "freeze_layers",
    "freeze_norm",
    "timm_preprocessing",
]
