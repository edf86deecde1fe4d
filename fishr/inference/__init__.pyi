from .exporting import export_model
from .named_weights import NamedWeights, named_weights
from .prediction import Predictions, image_files, predict
from .prediction_files import Written, write_predictions
from .trained_model import TrainedModel, load_model

__all__ = [
    "NamedWeights",
    "Predictions",
    "TrainedModel",
    "Written",
    "export_model",
    "image_files",
    "load_model",
    "named_weights",
    "predict",
    "write_predictions",
]
