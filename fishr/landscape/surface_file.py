"""Surfaces in HDF5, under the names that other landscape tools read."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fishr.data.caches.encoding import Tree
from fishr.data.caches.hdf5 import load_tree, save_tree
from fishr.errors import InputError
from fishr.landscape.directions import Directions
from fishr.landscape.plane import Scores
from fishr.landscape.surface import Frames, Surface

KIND = "fishr-surface"
_SCORES = ("loss", "accuracy")


def save_surface(path: Path, surface: Surface) -> None:
    """Write a surface, whole or not at all, and never over another file.

    Other tools read ``xcoordinates``, ``ycoordinates`` (of a plane), ``train_loss`` and ``train_acc`` (percent), the
    training domains' means. ``xdirection`` and ``ydirection`` have an array for each parameter that moves. ``domains``
    has each domain's losses and accuracies (from 0 to 1).

    Raises:
        InputError: the path exists.
        RunFailed: the file could not be written.

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
    """Read a surface, with every byte checked.

    Raises:
        InputError: the file is absent, damaged, or of another kind.
    """
    tree: Any = load_tree(path, KIND)
    try:
        return _surface(tree)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged (it lacks {error}); make it again") from error


def surface_tree(surface: Surface) -> Tree:
    directions, scores, frames = surface.directions, surface.scores, surface.frames
    vectors = [{str(i): _array(value) for i, value in enumerate(v.values())} for v in directions.vectors]
    # Without training domains, the mean of all.
    chosen: Any = surface.training or slice(None)
    loss, accuracy = (
        (part if surface.plane else part.mean(2))[chosen].mean(0) for part in (scores.losses, scores.accuracies)
    )
    tree: Tree = {
        "xcoordinates": _array(surface.axes[0]),
        "train_loss": _array(loss),
        "train_acc": _array(100 * accuracy),
        "xdirection": vectors[0],
        "domains": {
            str(index): {
                "name": name,
                "title": title,
                "split": split,
                "loss": _array(loss),
                "accuracy": _array(accuracy),
            }
            for index, (name, title, split, loss, accuracy) in enumerate(
                zip(surface.domains, surface.titles, surface.splits, scores.losses, scores.accuracies, strict=True)
            )
        },
        "directions": {
            **{name: getattr(directions, name) for name in ("kind", "seed", "names", "labels")},
            "points": _array(directions.points),
            "explained": np.array(directions.explained, dtype=np.float64),
        },
        "parameters": surface.parameters,
        "mode": "eval",
        "route": surface.route,
        "source": dict(surface.source),
        "settings": surface.settings,
        "every": surface.every,
    }
    if surface.plane:
        tree |= {"ycoordinates": _array(surface.axes[1]), "ydirection": vectors[1]}
    else:
        tree["lines"] = {str(index): vector for index, vector in enumerate(vectors) if index}
    if frames is not None:
        losses, accuracies = _array(frames.scores.losses), _array(frames.scores.accuracies)
        tree["frames"] = {"steps": np.array(frames.steps), "loss": losses, "accuracy": accuracies}
    return tree


def _surface(tree: Any) -> Surface:
    names, kept, frames = tree["parameters"], tree["directions"], tree.get("frames")
    arrays = [tree["xdirection"], *([tree["ydirection"]] if "ydirection" in tree else tree["lines"].values())]
    vectors = ({name: torch.from_numpy(vector[str(index)]) for index, name in enumerate(names)} for vector in arrays)
    points, explained = torch.from_numpy(kept["points"]), tuple(kept["explained"].tolist())
    domains = [tree["domains"][str(index)] for index in range(len(tree["domains"]))]
    # Files of earlier versions lack titles and "every".
    titles = tuple(domain.get("title", domain["name"]) for domain in domains)
    return Surface(
        Directions(kept["kind"], tuple(vectors), kept["names"], kept["seed"], points, kept["labels"], explained),
        tuple(torch.from_numpy(tree[name]) for name in ("xcoordinates", "ycoordinates") if name in tree),
        tuple(domain["name"] for domain in domains),
        tuple(domain["split"] for domain in domains),
        Scores(*(torch.from_numpy(np.stack([domain[name] for domain in domains])) for name in _SCORES)),
        names,
        tree["route"],
        frames and Frames(tuple(frames["steps"].tolist()), Scores(*(torch.from_numpy(frames[n]) for n in _SCORES))),
        tree["source"],
        tree["settings"],
        titles,
        tree.get("every", titles),
    )


def _array(tensor: Tensor) -> Any:
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(force=True)
