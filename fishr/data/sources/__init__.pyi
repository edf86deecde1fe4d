from .image_sets import IMAGE_SETS, ImageSet, find_image_set
from .installing import Installed, install
from .layouts import Environment
from .verifying import Contents, Verified, verify_images

__all__ = [
    "IMAGE_SETS",
    "Contents",
    "Environment",
    "ImageSet",
    "Installed",
    "Verified",
    "find_image_set",
    "install",
    "verify_images",
]
