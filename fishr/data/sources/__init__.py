"""Getting data sets of images: fetched, unpacked, laid out, checked."""

from fishr.data.sources.benchmarks import IMAGE_SETS, find_image_set
from fishr.data.sources.image_set import Archive, Environment, ImageSet
from fishr.data.sources.inspection import Contents, contents_of, is_laid
from fishr.data.sources.installing import Installed, install
from fishr.data.sources.verifying import Verified, verify_images

__all__ = [
    "IMAGE_SETS",
    "Archive",
    "Contents",
    "Environment",
    "ImageSet",
    "Installed",
    "Verified",
    "contents_of",
    "find_image_set",
    "install",
    "is_laid",
    "verify_images",
]
