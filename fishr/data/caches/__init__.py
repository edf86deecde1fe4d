"""HDF5 files of ours: the only package that knows h5py. The format is described in docs/format.md."""

from fishr.data.caches.encoding import Tree
from fishr.data.caches.features import FeatureCache, merge_features, open_features, rows_a_part, write_features
from fishr.data.caches.files import Header
from fishr.data.caches.gradients import GradientCache, open_gradients
from fishr.data.caches.images import CachedRows, ImageCache, ImageRows, open_images, write_images
from fishr.data.caches.inspection import Description, Element, describe, verify
from fishr.data.caches.parts import Parts
from fishr.data.caches.provenance import cache_key, check_fit
from fishr.data.caches.streams import Content, Section, write_domains
from fishr.data.caches.trees import load_tree, read_header, save_tree

__all__ = [
    "CachedRows",
    "Content",
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
