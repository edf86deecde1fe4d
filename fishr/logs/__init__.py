"""Live logs of a run's numbers: TensorBoard, Weights & Biases, MLflow, and your own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
