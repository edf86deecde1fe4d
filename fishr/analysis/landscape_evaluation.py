"""Evaluation of a landscape into a file, part by part, and its summary in numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from attrs import evolve

from fishr.analysis.landscape_plan import Plan
from fishr.data.caches.unfinished import Parts
from fishr.diagnostics.quantities.risk_grids import barrier, inconsistency
from fishr.errors import InputError
from fishr.files import present
from fishr.landscape.plane import Scores
from fishr.landscape.surface import Frames, Surface
from fishr.landscape.surface_file import KIND, load_surface, save_surface


def is_finished(path: Path, plan: Plan) -> bool:
    """Return whether the file has this landscape; raise InputError if it has another."""
    if not present(path):
        return False
    keys = [(s.settings, s.source.get("key"), s.source.get("second")) for s in (load_surface(path), plan.surface)]
    if keys[0] != keys[1]:
        raise InputError(f"{path}: holds another landscape; choose another name with --out, or remove it")
    return True


def evaluate_plan(plan: Plan, path: Path) -> Iterator[tuple[int, int]]:
    """Evaluate what a killed process has not finished into a file; yield the numbers of finished and of all parts."""
    parts = Parts(path, KIND, plan.key)
    if not is_finished(path, plan):
        with parts:
            yield from evaluate_parts(plan, parts)
        save_surface(path, gathered(plan, parts))
    # Also those that a kill just after the file was written has left.
    if parts.done:
        parts.remove()


def evaluate_parts(plan: Plan, parts: Parts) -> Iterator[tuple[int, int]]:
    xs, done = plan.surface.axes[0], set(parts.done)
    work = [(index, row) for index in range(len(plan.grids)) for row in range(0, len(xs), plan.rows)]
    yield len(done), len(work)
    for number, (index, row) in enumerate(work):
        if number not in done:
            found = plan.grids[index](xs[row : row + plan.rows], plan.ys)
            scores = {"losses": found.losses.numpy(), "accuracies": found.accuracies.numpy()}
            # In the files, a grid's number is called its sheet.
            parts.write(number, {"sheet": index, "row": row, **scores})
            done.add(number)
            yield len(done), len(work)


def gathered(plan: Plan, parts: Parts) -> Surface:
    """Return the surface with the scores of the finished parts."""
    surface = plan.surface
    shape = (len(plan.grids), len(surface.domains), len(surface.axes[0]), len(plan.ys))
    losses, accuracies = (torch.full(shape, torch.nan, dtype=torch.float64) for _ in range(2))
    for number in parts.done:
        part: Any = parts.read(number)
        for whole, name in ((losses, "losses"), (accuracies, "accuracies")):
            block = torch.from_numpy(part[name])
            whole[part["sheet"], :, part["row"] : part["row"] + block.shape[1]] = block
    if not surface.plane:
        return evolve(surface, scores=Scores(*(each.squeeze(3).permute(1, 2, 0) for each in (losses, accuracies))))
    frames = surface.frames and Frames(surface.frames.steps, Scores(losses[1:], accuracies[1:]))
    return evolve(surface, scores=Scores(losses[0], accuracies[0]), frames=frames)


def summary_of(surface: Surface) -> dict[str, list[float]]:
    """Return a number for each domain: risk and accuracy at θ*, extremes on the grid, barrier of an interpolation."""
    losses = surface.scores.losses
    at = (slice(None), *surface.center, *(() if surface.plane else (0,)))
    columns = {
        "risk": losses[at],
        "lowest": losses.flatten(1).amin(1),
        "highest": losses.flatten(1).amax(1),
        "accuracy": surface.scores.accuracies[at],
    }
    if surface.directions.kind == "interpolation":
        columns["barrier"] = barrier(losses[..., 0]).value
    return {name: column.tolist() for name, column in columns.items()}


def training_inconsistency(surface: Surface, epsilon: float) -> float | None:
    """Return the inconsistency of the training domains, loss; None with fewer than two, or if the grid has a hole."""
    losses = surface.scores.losses[surface.training]
    if len(losses) < 2 or not torch.isfinite(losses).all():
        return None
    planes = [losses] if surface.plane else losses.unbind(2)
    return max(float(inconsistency(plane, surface.center, epsilon).value) for plane in planes)
