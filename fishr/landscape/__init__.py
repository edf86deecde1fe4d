"""Landscapes: every domain's risk on one line or plane through weight space."""

from fishr.landscape.curvature import domain_gradient, eigen_directions, gradient_directions
from fishr.landscape.directions import Directions, random_directions, random_lines
from fishr.landscape.files import load_surface, save_surface
from fishr.landscape.grid import axis, grid_axes
from fishr.landscape.linear_surface import linear_scores
from fishr.landscape.network_surface import network_scores
from fishr.landscape.plane import Plane, Samples, Scores
from fishr.landscape.sheets import evaluate_sheets, gathered
from fishr.landscape.surface import Frames, Surface
from fishr.landscape.trajectory import checkpoint_directions, chord, pca_directions
from fishr.landscape.weights import Weights, weights_of

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
    "domain_gradient",
    "eigen_directions",
    "evaluate_sheets",
    "gathered",
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
