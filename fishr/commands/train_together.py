"""What ``fishr train`` does once its options are read, in one process or as one of several that torchrun began."""

import shlex
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from fishr.commands.shared import given_options
from fishr.errors import InputError, RunFailed

if TYPE_CHECKING:
    from fishr.ranks import Ranks
    from fishr.training import Artifacts, Experiment


class Choice(NamedTuple):
    """What to train: the configuration as TOML, the run folder, and what is kept."""

    text: str
    folder: Path
    keep: "Artifacts"


def train_together(
    choose: Callable[[], Choice], resume: bool, data_dir: Path | None, device: str, style: str, plugins: tuple[str, ...]
) -> None:
    """Train, and print the scores; of several ranks the first chooses, prints and draws.

    Args:
        choose: what to train.
        resume: the run goes on.
        data_dir: where data files lie.
        device: as ``--device`` has it.
        style: as ``--format`` has it.
        plugins: modules that the configuration needs.

    Raises:
        InputError: on one rank, or on the first; the others exit without a word.
        RunFailed: likewise, but each rank that is left says that another is gone.
    """
    from fishr.configuration import structure
    from fishr.configuration.toml import parse_toml
    from fishr.ranks import RankLost
    from fishr.training import Experiment, NotFinite, joined
    from fishr.training.launch import Refused, agreed, from_first

    choice: Choice | None = None
    with joined(device) as (ranks, where):

        def first_chooses() -> Choice | None:
            return choose() if ranks.number == 0 else None

        try:
            choice = from_first(agreed(first_chooses, ranks), ranks)
            assert choice is not None
            table = parse_toml(choice.text)
            experiment = agreed(lambda: structure(table, Experiment, plugins), ranks)
            _run(experiment, choice, data_dir, where, resume, style, ranks)
        except (Refused, NotFinite) as error:
            if ranks.number == 0:
                raise
            raise click.exceptions.Exit(2 if isinstance(error, InputError) else 1) from None
        except (InputError, RunFailed) as error:
            if ranks.alone:
                raise
            remedy = f"; go on with {_resume(choice.folder)}" if choice and isinstance(error, RankLost) else ""
            message = f"rank {ranks.number} of {ranks.count}: {error}{remedy}"
            if isinstance(error, InputError):
                raise InputError(message) from error
            raise (RankLost if isinstance(error, RankLost) else RunFailed)(message) from error


def _run(
    experiment: "Experiment",
    choice: Choice,
    data_dir: Path | None,
    device: str,
    resume: bool,
    style: str,
    ranks: "Ranks",
) -> None:
    from fishr.commands.rendering import follow, score_table
    from fishr.plots.run import save_run_figure
    from fishr.training import Finished, loss_outline, run
    from fishr.training.step import NotFinite

    folder, table = choice.folder, ""
    events = run(
        experiment,
        folder,
        experiment_text=choice.text,
        data_dir=data_dir,
        device=device,
        resume=resume,
        keep=choice.keep,
        ranks=ranks,
    )
    if ranks.number:
        for _ in events:
            pass
        return
    try:
        with closing(events):
            # JSON is for programs, which find the weights in metrics.jsonl.
            opening = "" if style == "json" else loss_outline(experiment.objective, experiment.steps)
            for event in follow(events, experiment.steps, opening=opening):
                if isinstance(event, Finished):
                    table = score_table(event.scores)
    except NotFinite as failure:
        kept = "its last checkpoint is kept" if (folder / "checkpoint.pt").exists() else "it had no checkpoint yet"
        raise RunFailed(f"{folder}: {failure}; {kept}") from failure
    except KeyboardInterrupt:
        remedy = f"; go on with fishr train {_resume(folder)}" if folder.exists() else ""
        raise RunFailed(f"{folder}: interrupted{remedy}") from None
    figure = save_run_figure(folder)
    if style == "json":
        click.echo((folder / "result.json").read_text(), nl=False)
    else:
        click.echo(f"{table}\n\nrun: {folder}\nfigure: {figure}")


def _resume(folder: Path) -> str:
    """Return the options that go on with a run, among them those that were given to this one."""
    return shlex.join(["--resume", str(folder), *given_options("data_dir", "device", "style", "plugins")])
