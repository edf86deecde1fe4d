"""Surfaces: each domain's risk over one grid in weight space."""

from collections.abc import Mapping

from attrs import Factory, frozen
from torch import Tensor

from fishr.errors import InputError
from fishr.landscape.directions import Directions
from fishr.landscape.plane import Scores


@frozen(eq=False)
class Frames:
    """The same plane around earlier weights, one surface a checkpoint.

    Args:
        steps: T, updates made before each checkpoint.
        scores: losses and accuracies [T, K, nx, ny].
    """

    steps: tuple[int, ...]
    scores: Scores


@frozen(eq=False)
class Surface:
    """Risks of all domains over one grid.

    Args:
        directions: of the axes.
        axes: [nx], and [ny] for a plane: coordinates, float64, ascending; θ* is at 0.
        domains: K names, training domains first.
        splits: "training" or "evaluation" of each domain.
        scores: losses and accuracies, [K, nx, ny] over a plane, [K, nx, S] over S lines; NaN where not evaluated.
        parameters: names of the parameters that move.
        route: how the scores were computed.
        frames: around earlier checkpoints, or None.
        source: of the weights and data.
        settings: options as JSON; with the source they determine the content.
        titles: name of each domain in tables and figures; by default its name.
        every: titles of all domains of the source, which decide the colors in figures; by default ``titles``.

    Raises:
        InputError: the scores do not fit the axes, domains and directions.

    Example:
        >>> import torch
        >>> lines = Directions("line", ({"w": torch.ones(2)},), ("random",), seed=0)
        >>> scores = Scores(torch.zeros(1, 3, 1), torch.ones(1, 3, 1))
        >>> surface = Surface(lines, (torch.tensor([-1.0, 0.0, 1.0]),), ("photo",), ("training",), scores, ("w",), "")
        >>> surface.center
        (1,)
    """

    directions: Directions
    axes: tuple[Tensor, ...]
    domains: tuple[str, ...]
    splits: tuple[str, ...]
    scores: Scores
    parameters: tuple[str, ...]
    route: str
    frames: Frames | None = None
    source: Mapping[str, str] = Factory(dict[str, str])
    settings: str = "{}"
    titles: tuple[str, ...] = Factory(lambda self: self.domains, takes_self=True)
    every: tuple[str, ...] = Factory(lambda self: self.titles, takes_self=True)

    def __attrs_post_init__(self) -> None:
        last = len(self.axes[1]) if self.plane else len(self.directions.vectors)
        expected = (len(self.domains), len(self.axes[0]), last)
        for part in (self.scores.losses, self.scores.accuracies):
            if part.shape != expected:
                raise InputError(f"surface: got scores of shape {tuple(part.shape)}, expected {expected}")
        for what, given in (("splits", self.splits), ("titles", self.titles)):
            if len(given) != len(self.domains):
                raise InputError(f"surface: got {len(given)} {what} for {len(self.domains)} domains")

    @property
    def plane(self) -> bool:
        """True if the grid has two axes, False if it has one for one or several lines."""
        return len(self.axes) == 2

    @property
    def center(self) -> tuple[int, ...]:
        """Index of θ* on the grid."""
        return tuple(int((axis == 0).nonzero()) for axis in self.axes)

    @property
    def centre(self) -> tuple[int, ...]:
        """The former spelling of ``center``."""
        return self.center

    @property
    def risks(self) -> Tensor:
        """[K, nx, ny], or [K, nx] as the mean over lines."""
        return self.scores.losses if self.plane else self.scores.losses.mean(2)

    @property
    def training(self) -> list[int]:
        """Indices of the training domains."""
        return [index for index, split in enumerate(self.splits) if split == "training"]
