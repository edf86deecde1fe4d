"""Published tables run again: methods × restarts, each restart a run folder of its own, resumable one by one."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean, pstdev
from types import MappingProxyType
from typing import Any

import attrs
from attrs import frozen

from fishr.configuration import dumps, load
from fishr.errors import InputError
from fishr.protocols import colored_digits, colored_mnist
from fishr.protocols.invariance import METHODS
from fishr.training import Event, Experiment, run


@frozen
class Accuracy:
    """Percent, mean and population standard deviation over restarts."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.deviation:.1f}"


@frozen
class Row:
    """One method of a reproduced table.

    Args:
        method: as ``METHODS`` names it.
        restarts: how many runs the means are over.
        measured: by column: train, reversed, gray.
        published: the same columns, or None where nothing was published.
    """

    method: str
    restarts: int
    measured: dict[str, Accuracy]
    published: dict[str, Accuracy] | None


@frozen
class Reproduction:
    """A table that can be run again.

    Args:
        recipe: method to experiment.
        published: by method and column.
        restarts: by default.
        source: of the published numbers.
    """

    recipe: Callable[[str], Experiment]
    published: Mapping[str, dict[str, Accuracy]]
    restarts: int
    source: str


COLUMNS = ("train", "reversed", "gray")


def _published(*numbers: tuple[float, float]) -> dict[str, Accuracy]:
    return {column: Accuracy(*pair) for column, pair in zip(COLUMNS, numbers, strict=True)}


REPRODUCTIONS: Mapping[str, Reproduction] = MappingProxyType(
    {
        "colored-digits": Reproduction(colored_digits, {}, restarts=5, source="nothing published"),
        "colored-mnist": Reproduction(
            colored_mnist,
            {
                "erm": _published((86.4, 0.2), (14.0, 0.7), (71.0, 0.7)),
                "irm": _published((71.0, 0.5), (65.6, 1.8), (66.1, 0.2)),
                "vrex": _published((71.7, 1.5), (67.2, 1.5), (68.6, 2.2)),
                "fishr": _published((71.0, 0.9), (69.5, 1.0), (70.2, 1.1)),
            },
            restarts=1,
            source="Ramé et al. 2022 (arXiv 2109.02934), Table 2, 10 restarts",
        ),
    }
)


@frozen
class Restart:
    """One run of a table.

    Args:
        method: as ``METHODS`` names it.
        seed: of the run.
        experiment: what is run.
        folder: its run folder.
    """

    method: str
    seed: int
    experiment: Experiment
    folder: Path

    def run(self, data_dir: Path | None = None, device: str = "cpu") -> Iterator[Event]:
        """The run's events: from its beginning, from its checkpoint, or only its end if it is finished.

        Raises:
            InputError: the folder holds another experiment.
        """
        resume = self.folder.exists()
        if resume and load_or_none(self.folder) != self.experiment:
            raise InputError(
                f"{self.folder}: holds another experiment than {self.experiment.name}; choose another --out"
            )
        text = dumps(self.experiment)
        return run(self.experiment, self.folder, experiment_text=text, data_dir=data_dir, device=device, resume=resume)


def restarts_of(
    name: str, folder: Path, methods: tuple[str, ...] = tuple(METHODS), restarts: int | None = None
) -> Iterator[Restart]:
    """Every run of a table, in order; the run folder of each is METHOD-SEED.

    Args:
        name: "colored-digits" or "colored-mnist".
        folder: of the run folders.
        methods: which, in order.
        restarts: seeds 0 to restarts − 1; by default the table's own number.

    Raises:
        InputError: no such table or method.

    Example:
        >>> [str(restart.folder) for restart in restarts_of("colored-digits", Path("out"), ("erm",), restarts=2)]
        ['out/erm-0', 'out/erm-1']
    """
    chosen = find_reproduction(name, methods)
    for method in methods:
        for seed in range(restarts or chosen.restarts):
            experiment = attrs.evolve(chosen.recipe(method), seed=seed)
            yield Restart(method, seed, experiment, folder / f"{method}-{seed}")


def load_or_none(folder: Path) -> Experiment | None:
    """The experiment of a run folder, or None if it is not one."""
    return load(folder / "config.toml", Experiment) if (folder / "config.toml").is_file() else None


def find_reproduction(name: str, methods: tuple[str, ...] = ()) -> Reproduction:
    """The table of a name.

    Raises:
        InputError: no such table, or no such method.

    Example:
        >>> find_reproduction("colored-mnist").published["fishr"]["reversed"]
        Accuracy(mean=69.5, deviation=1.0)
    """
    if name not in REPRODUCTIONS:
        raise InputError(f"{name}: got no such table, expected one of {', '.join(REPRODUCTIONS)}")
    for method in methods:
        if method not in METHODS:
            raise InputError(f"method: got {method!r}, expected some of {', '.join(METHODS)}")
    return REPRODUCTIONS[name]


def table(name: str, folder: Path, methods: tuple[str, ...] = tuple(METHODS)) -> tuple[Row, ...]:
    """Mean and standard deviation over the finished runs of a folder, beside the published numbers.

    Args:
        name: of the table.
        folder: of the run folders.
        methods: which, in order; those without a finished run are left out.

    Raises:
        InputError: no such table or method.
    """
    chosen = find_reproduction(name, methods)
    rows = list[Row]()
    for method in methods:
        results = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{method}-*/result.json"))]
        columns = [_columns(result["scores"]) for result in results if result["status"] == "finished"]
        if columns:
            measured = {
                name: Accuracy(100 * fmean(values), 100 * pstdev(values))
                for name in COLUMNS
                for values in [[column[name] for column in columns]]
            }
            rows.append(Row(method, len(columns), measured, chosen.published.get(method)))
    return tuple(rows)


def _columns(scores: list[dict[str, Any]]) -> dict[str, float]:
    by_name: dict[str, float] = {score["name"]: score["accuracy"] for score in scores}
    training = [by_name[score["name"]] for score in scores if score["split"] == "training"]
    return {"train": fmean(training), "reversed": by_name["reversed"], "gray": by_name["gray"]}


def row_of(row: Row) -> dict[str, Any]:
    """A row as plain values for JSON.

    Example:
        >>> row_of(Row("erm", 1, {"train": Accuracy(86.0, 0.0)}, None))["measured"]
        {'train': {'mean': 86.0, 'deviation': 0.0}}
    """
    return attrs.asdict(row)
