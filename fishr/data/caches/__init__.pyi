from .description import Description, Element, describe, verify
from .domain_rows import Section, rows_a_part, write_domains
from .encoding import Tree
from .feature_cache import FeatureCache, merge_features, open_features, write_features
from .gradient_cache import GradientCache, open_gradients
from .hdf5 import Header, load_tree, read_header, save_tree
from .image_cache import ImageCache, ImageRows, open_images, write_images
from .provenance import cache_key, check_fit
from .unfinished import Parts

__all__ = [
    "Description",
    "Element",
    "FeatureCache",
    "GradientCache",
    "Header",
    "ImageCache",
    "ImageRows",
    "Parts",
    "Section",
    "Tree",
    "cache_key",
    "check_fit",
    "describe",
    "load_tree",
    "merge_features",
    "open_features",
    "open_gradients",
    "open_images",
    "read_header",
    "rows_a_part",
    "save_tree",
    "verify",
    "write_domains",
    "write_features",
    "write_images",
]
