from .batch_transform import BatchTransform
from .mixup import Mixup, mix_domains

__all__ = ["BatchTransform", "Mixup", "mix_domains"]
