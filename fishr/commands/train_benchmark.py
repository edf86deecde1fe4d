"""The options of ``fishr train`` that name one job of the benchmark."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fishr.commands.shared import SEED, given_parameters, options
from fishr.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator

    from fishr.protocols.domainbed.job import Job
    from fishr.training import Event

_OWN = ("algorithm", "test_envs", "hparams_seed", "trial_seed")
# A job has its own seeds and computes as the jobs of a sweep do.
_REFUSED = ("experiment", "seed", "on_features", "precision")

benchmark_options = options(
    click.option("--benchmark", metavar="NAME", help="Run one job of DomainBed's benchmark on this data set."),
    click.option("--algorithm", metavar="NAME", help="Algorithm of the job, such as Fishr."),
    click.option(
        "--test-env", "test_envs", type=SEED, multiple=True, metavar="N", help="Environment to test on; repeatable."
    ),
    click.option(
        "--hparams-seed", type=SEED, default=0, metavar="N", help="Draw of the hyper-parameters; 0: the defaults."
    ),
    click.option("--trial-seed", type=SEED, default=0, metavar="N", help="Seed of the splits."),
)


def chosen_job(
    benchmark: str | None,
    algorithm: str | None,
    test_envs: tuple[int, ...],
    hparams_seed: int,
    trial_seed: int,
    steps: int | None,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
) -> "Job | None":
    """Return the job that the options name, None without ``--benchmark``; overrides change it and its ``settings``."""
    refused = _OWN if benchmark is None else _REFUSED
    for one in given_parameters():
        if one.name in refused:
            name = "RECIPE or FILE" if isinstance(one, click.Argument) else max(one.opts, key=len)
            if benchmark is None:
                raise InputError(f"{name}: got it without --benchmark; name a data set with it, or drop {name}")
            more = (
                ", and repeat --test-env for each environment" if isinstance(one, click.Argument) and test_envs else ""
            )
            raise InputError(f"{name}: got it together with --benchmark, whose job decides it; drop one of them{more}")
    if benchmark is None:
        return None
    from fishr.configuration import apply_overrides, structure
    from fishr.methods.every_method import METHODS
    from fishr.protocols.domainbed.job import Job
    from fishr.protocols.domainbed.settings import Settings

    if algorithm is None:
        raise InputError(f"--algorithm: got none, expected one of {', '.join(METHODS)}")
    if not test_envs:
        names = Settings().benchmark(benchmark).environments
        listed = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
        raise InputError(f"--test-env: got none, expected one or more of {listed}")
    table: dict[str, Any] = {
        "dataset": benchmark,
        "algorithm": algorithm,
        "test_envs": sorted(test_envs),
        "hparams_seed": hparams_seed,
        "trial_seed": trial_seed,
        "settings": {} if steps is None else {"steps": steps},
    }
    return structure(apply_overrides(table, overrides), Job, plugins)


def as_job(events: "Generator[Event]", folder: Path, job: str, plugins: tuple[str, ...]) -> "Generator[Event]":
    """Yield a run's events, and leave the files that a sweep leaves in a job's folder; the job is TOML."""
    import torch

    from fishr.configuration import structure
    from fishr.configuration.toml import parse_toml
    from fishr.protocols.domainbed.job import Job
    from fishr.sweeps.execution import conclude, recorded

    yield from recorded(events, folder, structure(parse_toml(job), Job, plugins), torch.get_num_threads())
    conclude(folder, keep="weights")
