from .activation_cache import ActivationCache, open_activations
from .description import Description, describe, verify
from .domain_rows import Section
from .feature_cache import FeatureCache, merge_features, open_features
from .gradient_cache import GradientCache, open_gradients
from .hdf5 import load_tree
from .image_cache import ImageCache, open_images

__all__ = [
    "ActivationCache",
    "Description",
    "FeatureCache",
    "GradientCache",
    "ImageCache",
    "Section",
    "describe",
    "load_tree",
    "merge_features",
    "open_activations",
    "open_features",
    "open_gradients",
    "open_images",
    "verify",
]
