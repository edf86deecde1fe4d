from .averaging import Averaged, Ingredient, uniform_soup, wise_ft, write_average
from .exporting import export_model
from .greedy_soup import greedy_soup
from .joining import join_layers
from .labelled_domains import labelled_domains
from .named_weights import NamedWeights, named_weights
from .prediction import Predictions, image_files, predict
from .prediction_files import Written, write_predictions
from .scoring import Bootstrap, DomainResult, score_run
from .sweep_soups import SweepSoup, average_sweep
from .trained_model import TrainedModel, load_model

__all__ = [
    "Averaged",
    "Bootstrap",
    "DomainResult",
    "Ingredient",
    "NamedWeights",
    "Predictions",
    "SweepSoup",
    "TrainedModel",
    "Written",
    "average_sweep",
    "export_model",
    "greedy_soup",
    "image_files",
    "join_layers",
    "labelled_domains",
    "load_model",
    "named_weights",
    "predict",
    "score_run",
    "uniform_soup",
    "wise_ft",
    "write_average",
    "write_predictions",
]
