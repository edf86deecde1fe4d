from .directions import Directions, eigen_directions, gradient_directions, random_directions, random_lines
from .grid import axis, grid_axes
from .linear_surface import linear_scores
from .network_surface import network_scores
from .plane import Plane, Samples, Scores, Weights, weights_of
from .surface import Frames, Surface
from .surface_file import load_surface, save_surface
from .trajectory import checkpoint_directions, chord, pca_directions

__all__ = [
    "Directions",
    "Frames",
    "Plane",
    "Samples",
    "Scores",
    "Surface",
    "Weights",
    "axis",
    "checkpoint_directions",
    "chord",
    "eigen_directions",
    "gradient_directions",
    "grid_axes",
    "linear_scores",
    "load_surface",
    "network_scores",
    "pca_directions",
    "random_directions",
    "random_lines",
    "save_surface",
    "weights_of",
]
