"""Landscapes in files: planned, evaluated part by part, and summed up."""

from collections.abc import Iterator
from pathlib import Path

import torch
from attrs import frozen

from fishr.analysis.landscape_plan import Plan, plan_landscape
from fishr.analysis.landscape_wanted import Landscape
from fishr.analysis.subject import Subject
from fishr.data.caches import Parts
from fishr.diagnostics import barrier, inconsistency
from fishr.errors import InputError
from fishr.files import present
from fishr.landscape import Frames, Scores, Surface, evaluate_sheets, gathered, load_surface, save_surface
from fishr.landscape.files import KIND

__all__ = ["Landscape", "Plan", "Summary", "evaluate_plan", "is_finished", "plan_landscape", "summarise", "unfinished"]


def is_finished(path: Path, plan: Plan) -> bool:
    """Whether a file holds this very landscape already.

    Args:
        path: of the file.
        plan: of the landscape.

    Raises:
        InputError: it holds another landscape, or something else.

    Example:
        >>> from fishr.landscape import random_lines
        >>> plan = Plan(random_lines({"w": torch.ones(1, 1)}, 0, 1), (torch.zeros(3),), (), (), ("w",), "", 1, "{}", {})
        >>> is_finished(Path("nowhere.h5"), plan)
        False
    """
    if not present(path):
        return False
    found = load_surface(path)
    keys = [(each.settings, each.source.get("key"), each.source.get("second")) for each in (found, plan)]
    if keys[0] != keys[1]:
        raise InputError(f"{path}: holds another landscape; choose another name with --out, or remove it")
    return True


def evaluate_plan(subject: Subject, plan: Plan, path: Path) -> Iterator[tuple[int, int]]:
    """Evaluate a landscape into a file; what a killed attempt had evaluated is not evaluated again.

    Args:
        subject: that the plan was made for.
        plan: of the landscape.
        path: of the HDF5 file; its folder exists.

    Yields:
        How many parts are done, and how many there are.

    Raises:
        InputError: something else is there, or the unfinished parts are of another landscape.
        RunFailed: a file could not be written.

    Example:
        >>> import tempfile
        >>> from fishr.data import Domain
        >>> from fishr.losses import CrossEntropy
        >>> flat = Domain("flat", torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> head = torch.nn.Linear(3, 2)
        >>> subject = Subject.from_domains("mine", head, CrossEntropy(), [flat], ("training",), source={"key": "a"})
        >>> plan = plan_landscape(subject, Landscape("random", grid=(5, 3)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     list(evaluate_plan(subject, plan, Path(folder, "a.h5")))
        ...     load_surface(Path(folder, "a.h5")).risks.shape
        [(0, 1), (1, 1)]
        torch.Size([1, 5, 3])
    """
    parts = Parts(path, KIND, plan.key)
    if not is_finished(path, plan):
        with parts:
            yield from evaluate_sheets(plan.sheets, plan.xs, plan.ys, parts, plan.rows)
        save_surface(path, _surface(subject, plan, parts))
    # Also those that a kill just after the file was written has left.
    if parts.done:
        parts.remove()


def unfinished(subject: Subject, plan: Plan, path: Path) -> Surface:
    """What there is of a landscape whose evaluation goes on or was killed; NaN for the rest.

    Args:
        subject: that the plan was made for.
        plan: of the landscape.
        path: of the file that is being made.

    Raises:
        InputError: the parts there are of another landscape, or damaged.

    Example:
        >>> from fishr.data import Domain
        >>> from fishr.losses import CrossEntropy
        >>> flat = Domain("flat", torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> head = torch.nn.Linear(3, 2)
        >>> subject = Subject.from_domains("mine", head, CrossEntropy(), [flat], ("training",), source={"key": "a"})
        >>> plan = plan_landscape(subject, Landscape("random", grid=(1, 1)))
        >>> unfinished(subject, plan, Path("nowhere.h5")).risks.flatten()
        tensor([nan], dtype=torch.float64)
    """
    return _surface(subject, plan, Parts(path, KIND, plan.key))


def _surface(subject: Subject, plan: Plan, parts: Parts) -> Surface:
    found = gathered(parts, len(plan.sheets), len(subject.domains), plan.xs, plan.ys)
    frames = None
    if len(plan.axes) == 2:
        scores = Scores(found.losses[0], found.accuracies[0])
        if plan.steps:
            frames = Frames(plan.steps, Scores(found.losses[1:], found.accuracies[1:]))
    else:
        scores = Scores(*(part.squeeze(3).permute(1, 2, 0) for part in (found.losses, found.accuracies)))
    return Surface(
        plan.directions,
        plan.axes,
        subject.domains,
        subject.splits,
        scores,
        plan.parameters,
        plan.route,
        frames,
        plan.source,
        plan.settings,
    )


@frozen
class Summary:
    """A landscape in numbers.

    Args:
        domains: names.
        splits: of each.
        centre: risk of each domain at the weights themselves.
        lowest: and the lowest on the grid.
        highest: and the highest.
        accuracy: at the weights, share from 0 to 1.
        epsilon: ε of the inconsistency.
        inconsistency: of the training domains, loss; None with fewer than two, or where the grid has a hole.
        barrier: of each domain along an interpolation, loss; None for other landscapes.

    Example:
        >>> Summary(("photo",), ("training",), (0.1,), (0.1,), (2.0,), (0.9,), 0.1, None, None).lowest
        (0.1,)
    """

    domains: tuple[str, ...]
    splits: tuple[str, ...]
    centre: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    accuracy: tuple[float, ...]
    epsilon: float
    inconsistency: float | None
    barrier: tuple[float, ...] | None


def summarise(surface: Surface, epsilon: float = 0.1) -> Summary:
    """The numbers that a table shows of a landscape.

    Args:
        surface: evaluated everywhere.
        epsilon: ε of the inconsistency, loss.

    Raises:
        InputError: ε is negative.

    Example:
        >>> from fishr.landscape import random_lines
        >>> line = random_lines({"w": torch.ones(1, 1)}, 0, 1)
        >>> risks = torch.tensor([[2.0, 0.0, 1.0]]).unsqueeze(2)
        >>> axis = torch.tensor([-1.0, 0.0, 1.0])
        >>> surface = Surface(line, (axis,), ("photo",), ("training",), Scores(risks, risks), ("w",), "")
        >>> summarise(surface).highest
        (2.0,)
    """
    losses = surface.scores.losses
    at = (slice(None), surface.centre[0], surface.centre[1] if surface.plane else 0)
    return Summary(
        surface.domains,
        surface.splits,
        tuple(losses[at].tolist()),
        tuple(losses.flatten(1).amin(1).tolist()),
        tuple(losses.flatten(1).amax(1).tolist()),
        tuple(surface.scores.accuracies[at].tolist()),
        epsilon,
        _inconsistency(surface, epsilon),
        tuple(barrier(losses[..., 0]).value.tolist()) if surface.directions.kind == "interpolation" else None,
    )


def _inconsistency(surface: Surface, epsilon: float) -> float | None:
    chosen = [index for index, split in enumerate(surface.splits) if split == "training"]
    losses = surface.scores.losses[chosen]
    if len(chosen) < 2 or not torch.isfinite(losses).all():
        return None
    if surface.plane:
        return float(inconsistency(losses, surface.centre, epsilon).value)
    return max(float(inconsistency(line, surface.centre, epsilon).value) for line in losses.unbind(2))
