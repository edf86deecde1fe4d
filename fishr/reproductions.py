"""Published tables and their reproduction: methods × restarts, each in a run folder of its own that can be resumed."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
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
    """Mean and population standard deviation over restarts, percent."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.deviation:.1f}"


@frozen
class Row:
    """One method of a table: means over ``restarts`` runs by column, and the published ones, if there are any."""

    method: str
    restarts: int
    measured: dict[str, Accuracy]
    published: dict[str, Accuracy] | None


@frozen
class Reproduction:
    """A table that can be run again."""

    recipe: Callable[[str], Experiment]
    published: Mapping[str, dict[str, Accuracy]]  # by method and column
    restarts: int  # default number
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
    """One run of a table."""

    method: str
    seed: int
    experiment: Experiment
    folder: Path

    def run(self, data_dir: Path | None = None, device: str = "cpu") -> Generator[Event]:
        """Return the run's events from its beginning or its checkpoint; only its end if it is finished."""
        resume, file = self.folder.exists(), self.folder / "config.toml"
        if resume and not (file.is_file() and load(file, Experiment) == self.experiment):
            raise InputError(
                f"{self.folder}: holds another experiment than {self.experiment.name}; choose another --out"
            )
        text = dumps(self.experiment)
        return run(self.experiment, self.folder, experiment_text=text, data_dir=data_dir, device=device, resume=resume)


def restarts_of(
    name: str, folder: Path, methods: tuple[str, ...] = tuple(METHODS), restarts: int | None = None
) -> Iterator[Restart]:
    """Yield the runs of a table in order, with seeds from 0, in run folders METHOD-SEED."""
    chosen = find_reproduction(name, methods)
    for method in methods:
        for seed in range(restarts or chosen.restarts):
            experiment = attrs.evolve(chosen.recipe(method), seed=seed)
            yield Restart(method, seed, experiment, folder / f"{method}-{seed}")


def find_reproduction(name: str, methods: tuple[str, ...] = ()) -> Reproduction:
    """Return a table by name; refuse methods that it does not have."""
    if name not in REPRODUCTIONS:
        raise InputError(f"{name}: got no such table, expected one of {', '.join(REPRODUCTIONS)}")
    for method in methods:
        if method not in METHODS:
            raise InputError(f"method: got {method!r}, expected some of {', '.join(METHODS)}")
    return REPRODUCTIONS[name]


def table(name: str, folder: Path, methods: tuple[str, ...] = tuple(METHODS)) -> tuple[Row, ...]:
    """Return the means over the finished runs of a folder, by method; a method without one is left out."""
    chosen = find_reproduction(name, methods)
    rows = list[Row]()
    for method in methods:
        results = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{method}-*/result.json"))]
        columns = [_columns(result["scores"]) for result in results if result["status"] == "finished"]
        if columns:
            shares = {name: [column[name] for column in columns] for name in COLUMNS}
            measured = {name: Accuracy(100 * fmean(of), 100 * pstdev(of)) for name, of in shares.items()}
            rows.append(Row(method, len(columns), measured, chosen.published.get(method)))
    return tuple(rows)


def _columns(scores: list[dict[str, Any]]) -> dict[str, float]:
    by_name: dict[str, float] = {score["name"]: score["accuracy"] for score in scores}
    training = [by_name[score["name"]] for score in scores if score["split"] == "training"]
    return {"train": fmean(training), "reversed": by_name["reversed"], "gray": by_name["gray"]}
