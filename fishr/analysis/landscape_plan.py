"""What a landscape of a subject consists of: the weights that move, along what, where, and by which route."""

import hashlib
import json
from collections.abc import Callable

import torch
from attrs import asdict, frozen
from torch import Tensor

from fishr.analysis.landscape_directions import choose_directions, of_snapshot
from fishr.analysis.landscape_frames import frames_of, samples_at
from fishr.analysis.landscape_wanted import Landscape, check_wanted, moved_module, read_samples
from fishr.analysis.subject import Subject
from fishr.landscape import Directions, Plane, Samples, Scores, grid_axes, linear_scores, network_scores, weights_of
from fishr.landscape.sheets import Sheet
from fishr.landscape.weights import flattened
from fishr.statistics.linear_head import is_plain_linear

# Samples × grid points of one part of a linear head's landscape: some seconds of work.
_PART = 1 << 27
_ROUTES = {True: "affine logits of the linear head", False: "torch.func.functional_call"}


@frozen(eq=False)
class Plan:
    """A landscape that is ready to be evaluated.

    Args:
        directions: of the axes.
        axes: [nx], or [nx] and [ny].
        sheets: the plane and its frames, or one a line; all on the grid of ``xs`` and ``ys``.
        steps: of the frames.
        parameters: names of those that move.
        route: how scores are computed.
        rows: grid rows of one part.
        settings: what was asked for, as JSON.
        source: where weights and data come from.

    Example:
        >>> from fishr.landscape import random_lines
        >>> Plan(random_lines({"w": torch.ones(1, 1)}, 0, 1), (torch.zeros(3),), (), (), ("w",), "", 1, "{}", {}).ys
        tensor([0.], dtype=torch.float64)
    """

    directions: Directions
    axes: tuple[Tensor, ...]
    sheets: tuple[Sheet, ...]
    steps: tuple[int, ...]
    parameters: tuple[str, ...]
    route: str
    rows: int
    settings: str
    source: dict[str, str]

    @property
    def xs(self) -> Tensor:
        """[nx]."""
        return self.axes[0]

    @property
    def ys(self) -> Tensor:
        """[ny], on lines a single 0."""
        return self.axes[1] if len(self.axes) == 2 else torch.zeros(1, dtype=torch.float64)

    @property
    def key(self) -> str:
        """A hash of everything that decides the scores."""
        digest = hashlib.sha256(json.dumps([self.settings, self.source["key"], self.source.get("second")]).encode())
        for vector in self.directions.vectors:
            digest.update(flattened(vector).numpy(force=True).tobytes())
        return digest.hexdigest()


def plan_landscape(subject: Subject, wanted: Landscape, second: Subject | None = None) -> Plan:
    """Choose directions, coordinates and route.

    Args:
        subject: whose weights are in the centre, and whose domains are looked at.
        wanted: the landscape.
        second: the other end of an interpolation.

    Returns:
        The plan; nothing is evaluated yet.

    Raises:
        InputError: what is wanted does not fit the subject.

    Example:
        >>> from fishr.data import Domain
        >>> from fishr.losses import CrossEntropy
        >>> flat = Domain("flat", torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> head = torch.nn.Linear(3, 2)
        >>> subject = Subject.from_domains("mine", head, CrossEntropy(), [flat], ("training",), source={"key": "a"})
        >>> plan_landscape(subject, Landscape("random", grid=(5, 3))).route
        'affine logits of the linear head'
    """
    check_wanted(subject, wanted, second)
    module, samples = moved_module(subject, wanted), read_samples(subject, wanted)
    # Between two runs, running means are weights as well; else they stay those of the centre.
    centre = weights_of(module, buffers=second is not None)
    directions = choose_directions(subject, wanted, second, module, samples, centre)
    axes = grid_axes(directions, wanted.grid, wanted.span)
    linear = is_plain_linear(module) and all(inputs.ndim == 2 for inputs, _ in samples)

    def sheet(plane: Plane, read: Callable[[], Samples] = lambda: samples) -> Sheet:
        def evaluate(xs: Tensor, ys: Tensor) -> Scores:
            if linear:
                return linear_scores(plane, read(), xs, ys, subject.seen.loss)
            return network_scores(module, plane, read(), xs, ys, subject.seen.loss)

        return evaluate

    if len(axes) == 2:
        sheets = [sheet(Plane(centre, *directions.vectors))]
    else:
        sheets = [sheet(Plane(centre, vector)) for vector in directions.vectors]
    shown = frames_of(subject) if wanted.animate else ()
    for snapshot in shown:
        plane = Plane(of_snapshot(snapshot, wanted, centre), *directions.vectors)
        sheets.append(sheet(plane, samples_at(subject, wanted, snapshot)))
    work = sum(len(labels) for _, labels in samples) * (len(axes[1]) if len(axes) == 2 else 1)
    chosen = {"domains": list(subject.domains)}
    return Plan(
        directions=directions,
        axes=axes,
        sheets=tuple(sheets),
        steps=tuple(snapshot.step for snapshot in shown),
        parameters=tuple(centre),
        route=_ROUTES[linear],
        rows=max(1, _PART // work) if linear else 1,
        settings=json.dumps(asdict(wanted) | chosen, sort_keys=True),
        source=dict(subject.source) | ({} if second is None else {"second": second.source["key"]}),
    )
