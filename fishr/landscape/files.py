"""Surfaces in HDF5, under the names that other landscape tools read."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fishr.data.caches import Tree, load_tree, save_tree
from fishr.errors import InputError
from fishr.landscape.directions import Directions
from fishr.landscape.plane import Scores
from fishr.landscape.surface import Frames, Surface
from fishr.landscape.weights import Weights

KIND = "fishr-surface"


def save_surface(path: Path, surface: Surface) -> None:
    """Write a surface: whole or not at all, and never over another file.

    ``xcoordinates``, ``ycoordinates`` (of a plane), ``train_loss`` and ``train_acc`` (percent, the training domains'
    mean) are what other tools read; ``xdirection`` and ``ydirection`` hold an array for each moved parameter. Each
    domain's losses and accuracies (shares) lie in ``domains``.

    Args:
        path: where; its folder exists.
        surface: what to keep.

    Raises:
        InputError: something is there.
        RunFailed: it could not be written.

    Example:
        >>> import tempfile
        >>> line = Directions("line", ({"w": torch.ones(2)},), ("random",), seed=0)
        >>> scores = Scores(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
        >>> surface = Surface(line, (torch.zeros(1),), ("photo",), ("training",), scores, ("w",), "by hand")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_surface(Path(folder, "a.h5"), surface)
        ...     load_surface(Path(folder, "a.h5")).domains
        ('photo',)
    """
    save_tree(path, KIND, surface_tree(surface))


def load_surface(path: Path) -> Surface:
    """Read a surface, every byte checked.

    Args:
        path: of a file that ``save_surface`` wrote.

    Returns:
        The surface, on the CPU.

    Raises:
        InputError: absent, damaged, or another kind of file.

    Example:
        >>> load_surface(Path("nowhere.h5"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.h5: no such file; give the path of a file that fishr wrote
    """
    tree: Any = load_tree(path, KIND)
    try:
        return _surface(tree)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged (it lacks {error}); make it again") from error


def surface_tree(surface: Surface) -> Tree:
    """The content of the file.

    Example:
        >>> line = Directions("line", ({"w": torch.ones(2)},), ("random",), seed=0)
        >>> scores = Scores(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
        >>> tree = surface_tree(Surface(line, (torch.zeros(1),), ("photo",), ("training",), scores, ("w",), ""))
        >>> tree["train_acc"].tolist(), "ycoordinates" in tree
        ([100.0], False)
    """
    vectors, axes = surface.directions.vectors, surface.axes
    losses, accuracies = surface.scores.losses, surface.scores.accuracies
    shown = [surface.training_mean(part if surface.plane else part.mean(2)) for part in (losses, accuracies)]
    tree: Tree = {
        "xcoordinates": _array(axes[0]),
        "train_loss": _array(shown[0]),
        "train_acc": _array(100 * shown[1]),
        "xdirection": _arrays(vectors[0]),
    }
    if surface.plane:
        tree |= {"ycoordinates": _array(axes[1]), "ydirection": _arrays(vectors[1])}
    else:
        tree["lines"] = {str(index): _arrays(vector) for index, vector in enumerate(vectors) if index}
    if surface.frames is not None:
        scores = surface.frames.scores
        tree["frames"] = {
            "steps": np.array(surface.frames.steps),
            "loss": _array(scores.losses),
            "accuracy": _array(scores.accuracies),
        }
    names = zip(surface.domains, surface.splits, losses, accuracies, strict=True)
    rest: Tree = {
        "domains": {
            str(index): {"name": name, "split": split, "loss": _array(loss), "accuracy": _array(accuracy)}
            for index, (name, split, loss, accuracy) in enumerate(names)
        },
        "directions": {
            "kind": surface.directions.kind,
            "seed": surface.directions.seed,
            "names": surface.directions.names,
            "points": _array(surface.directions.points),
            "labels": surface.directions.labels,
            "explained": np.array(surface.directions.explained, dtype=np.float64),
        },
        "parameters": surface.parameters,
        "mode": "eval",
        "route": surface.route,
        "source": dict(surface.source),
        "settings": surface.settings,
    }
    return tree | rest


def _surface(tree: Any) -> Surface:
    plane = "ycoordinates" in tree
    parameters, kept = tree["parameters"], tree["directions"]
    held = [tree["xdirection"], tree["ydirection"]] if plane else [tree["xdirection"], *tree["lines"].values()]
    directions = Directions(
        kept["kind"],
        tuple(_weights(arrays, parameters) for arrays in held),
        kept["names"],
        kept["seed"],
        torch.from_numpy(kept["points"]),
        kept["labels"],
        tuple(kept["explained"].tolist()),
    )
    domains = [tree["domains"][str(index)] for index in range(len(tree["domains"]))]
    frames = tree.get("frames")
    return Surface(
        directions,
        tuple(torch.from_numpy(tree[name]) for name in ("xcoordinates", "ycoordinates") if name in tree),
        tuple(domain["name"] for domain in domains),
        tuple(domain["split"] for domain in domains),
        Scores(*(torch.stack([torch.from_numpy(d[name]) for d in domains]) for name in ("loss", "accuracy"))),
        parameters,
        tree["route"],
        None if frames is None else _frames(frames),
        tree["source"],
        tree["settings"],
    )


def _frames(tree: Any) -> Frames:
    return Frames(tuple(tree["steps"].tolist()), Scores(*(torch.from_numpy(tree[n]) for n in ("loss", "accuracy"))))


def _weights(arrays: Any, names: tuple[str, ...]) -> Weights:
    return {name: torch.from_numpy(arrays[str(index)]) for index, name in enumerate(names)}


def _arrays(weights: Weights) -> Tree:
    return {str(index): _array(value) for index, value in enumerate(weights.values())}


def _array(tensor: Tensor) -> Any:
    # bfloat16 has no NumPy type.
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(force=True)
