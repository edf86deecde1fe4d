"""Data sets of image files: read when they are needed, augmented by the image's own seed, cached on request."""

from fishr.data.images.caching import cache_images
from fishr.data.images.checking import Unreadable, find_unreadable
from fishr.data.images.folders import ImageFolders
from fishr.data.images.lists import ImageList
from fishr.data.images.pictures import ImageFiles, Pictures

__all__ = [
    "ImageFiles",
    "ImageFolders",
    "ImageList",
    "Pictures",
    "Unreadable",
    "cache_images",
    "find_unreadable",
]
