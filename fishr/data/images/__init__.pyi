from .augmentation import Augmentation, DomainBedAugmentation, NoAugmentation, RandAugment, TrivialAugment
from .caching import cache_images
from .huggingface_images import HuggingFaceImages
from .image_data import ImageFolders, ImageList
from .image_inputs import ImageInputs, Pictures
from .image_stores import ImageFiles
from .list_files import Columns
from .preprocessing import Preprocessing
from .unreadable import Unreadable, find_unreadable

__all__ = [
    "Augmentation",
    "Columns",
    "DomainBedAugmentation",
    "HuggingFaceImages",
    "ImageFiles",
    "ImageFolders",
    "ImageInputs",
    "ImageList",
    "NoAugmentation",
    "Pictures",
    "Preprocessing",
    "RandAugment",
    "TrivialAugment",
    "Unreadable",
    "cache_images",
    "find_unreadable",
]
