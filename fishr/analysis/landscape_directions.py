"""The directions of a subject's landscape, from its weights, its domains or its kept checkpoints."""

import torch
from torch import nn

from fishr.analysis.landscape_wanted import Landscape, moved_module
from fishr.analysis.subject import Snapshot, Subject
from fishr.errors import InputError
from fishr.landscape import (
    Directions,
    Samples,
    Weights,
    checkpoint_directions,
    chord,
    eigen_directions,
    gradient_directions,
    pca_directions,
    random_directions,
    random_lines,
    weights_of,
)


def choose_directions(
    subject: Subject,
    wanted: Landscape,
    second: Subject | None,
    module: nn.Module,
    samples: Samples,
    centre: Weights,
) -> Directions:
    """The directions that are wanted.

    Args:
        subject: whose weights are in the centre.
        wanted: the landscape.
        second: the other end of an interpolation.
        module: whose weights move.
        samples: what it reads of each domain.
        centre: the weights that move.

    Returns:
        One set of directions for all domains.

    Raises:
        InputError: too few checkpoints or domains, or weights that span nothing.
    """
    names = subject.domains
    match wanted.kind:
        case "random":
            return random_directions(centre, wanted.seed)
        case "line":
            return random_lines(centre, wanted.seed, wanted.lines)
        case "interpolation":
            assert second is not None
            end = weights_of(moved_module(second, wanted), buffers=True)
            return chord(centre, end, (subject.name, second.name))
        case "eigen":
            (name,) = wanted.of or names[:1]
            return eigen_directions(module, *samples[names.index(name)], name, subject.seen.loss)
        case "gradients":
            pair = wanted.of or names[:2]
            if len(pair) != 2:
                raise InputError(f"gradients: got {len(pair)} domain, expected two to lay a plane through")
            first, other = (samples[names.index(name)] for name in pair)
            return gradient_directions(module, first, other, (pair[0], pair[1]), subject.seen.loss)
        case "pca" | "checkpoints":
            steps, visited = _visited(subject, wanted, centre)
            if wanted.kind == "pca":
                return pca_directions(visited, steps)
            if len(visited) < 3:
                raise InputError(
                    f"{subject.name}: kept {len(visited)} checkpoints, expected at least 3; train with "
                    "--keep-checkpoints and a smaller checkpoint_every"
                )
            three = (0, (len(visited) - 1) // 2, len(visited) - 1)
            return checkpoint_directions([visited[i] for i in three], [steps[i] for i in three])


def _visited(subject: Subject, wanted: Landscape, centre: Weights) -> tuple[list[str], list[Weights]]:
    """The kept checkpoints, the weights in the centre last."""
    found = [(snapshot.step, of_snapshot(snapshot, wanted, centre)) for snapshot in subject.trajectory]
    if found and all(torch.equal(value, centre[name]) for name, value in found[-1][1].items()):
        found.pop()
    last = subject.source.get("step", "the last")
    return [*(f"step {step}" for step, _ in found), f"step {last}"], [*(weights for _, weights in found), centre]


def of_snapshot(snapshot: Snapshot, wanted: Landscape, centre: Weights) -> Weights:
    """The weights that move, as they were in a kept checkpoint."""
    prefix = "head." if wanted.parameters == "head" else ""
    return {name: snapshot.parameters[prefix + name] for name in centre}
