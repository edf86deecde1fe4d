"""A run on disk: configuration, metrics, checkpoint and result in one folder, resumable after any kill."""

import json
import shutil
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import torch

from fishr.checks import returned
from fishr.data.domains import Domains
from fishr.errors import InputError
from fishr.files import present, remove_leftovers
from fishr.ranks import ALONE, Ranks
from fishr.training.artifacts import Artifacts, load_artifacts
from fishr.training.checkpoints import Checkpoint, load
from fishr.training.compute import resolve_device
from fishr.training.evaluation import score_of
from fishr.training.experiment import Experiment
from fishr.training.journal import Journal
from fishr.training.launch import agreed, from_first
from fishr.training.loop import Event, Finished, StepFunctions, train
from fishr.training.model import Model, build_model
from fishr.training.run_folder import (
    CHECKPOINT,
    METRICS,
    RESULT,
    check_absent,
    checkpoint_of,
    existing_folder,
    new_folder,
)
from fishr.training.state import TrainingState, first_state, state_to


def run(
    experiment: Experiment,
    folder: Path,
    *,
    experiment_text: str,
    data_dir: Path | None = None,
    device: str = "cpu",
    resume: bool = False,
    keep: Artifacts = Artifacts(),  # noqa: B008 (immutable)
    ranks: Ranks = ALONE,
    by: StepFunctions | None = None,
    checkpoint_seconds: float = 0.0,
) -> Generator[Event]:
    """Train in a run folder: the events of ``train``, each recorded before it is yielded.

    The folder holds config.toml, metrics.jsonl (a line a step and a line an evaluation), checkpoint.pt and, at the end,
    result.json; with ``keep`` also statistics.h5 at the end and checkpoints/ on the way. On a CPU, a run that is killed
    at any moment and resumed with as many threads has identical bits in metrics, weights and statistics.

    Args:
        experiment: the run.
        folder: run folder; it must not exist, or with ``resume`` it must be that of this run.
        experiment_text: the configuration as TOML, written to config.toml.
        data_dir: folder of data files, for data that has files.
        device: as for ``train``.
        resume: resume from the folder's checkpoint; a finished run yields only its Finished.
        keep: statistics and snapshots, neither of which changes the run; a resumed run keeps those it started with.
        ranks: the processes that train together; only the first reads and writes the folder. Another number of them
            may resume a run.
        by: as for ``train``.
        checkpoint_seconds: least time between two checkpoints but the last, where no snapshots are kept.

    Raises:
        InputError: a folder that exists, or that cannot be resumed; input that ``train`` refuses.
        RunFailed: the loss or a parameter is not finite, or a file could not be written; the last checkpoint is kept.
        Refused: one of the ranks refuses; on all of them.
        RankLost: another rank is gone; the first one has made a checkpoint of the last step.

    Example:
        >>> import tempfile
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> experiment = attrs.evolve(colored_digits(), steps=2)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = Path(parent) / "run"
        ...     events = list(run(experiment, folder, experiment_text=""))
        ...     sorted(path.name for path in folder.iterdir())
        ['checkpoint.pt', 'config.toml', 'metrics.jsonl', 'result.json']
    """
    where, text = resolve_device(device), experiment_text
    with ExitStack() as stack:

        def prepare() -> tuple[Domains, Model | None, Checkpoint | Finished | None, Artifacts]:
            """Return data and modules on the device, where the first rank starts, and artifacts."""
            kept = keep
            if ranks.number == 0 and resume:
                stack.enter_context(existing_folder(folder, text))
                kept = load_artifacts(folder)
            elif ranks.number == 0:
                check_absent(folder)
            domains = returned("data", experiment.data(experiment.seed, data_dir), Domains)
            finished = _finished(folder, text) if ranks.number == 0 and resume else None
            if finished is not None:
                return domains, None, finished, kept
            domains = domains.to(where)
            model = build_model(experiment, domains)
            if ranks.number:
                return domains, model, None, kept
            # On the CPU, from where the other ranks get it.
            state = state_to(first_state(experiment, model, len(domains.training)), torch.device("cpu"))
            if resume:
                return domains, model, _last_checkpoint(folder, text, state, experiment.steps), kept
            # Only now: an experiment that cannot be trained leaves no folder behind.
            stack.enter_context(new_folder(folder, text, kept.save))
            stack.enter_context(_removed_if_refused(folder))
            return domains, model, Checkpoint(state, text), kept

        domains, model, start, kept = agreed(prepare, ranks)
        start = from_first(start, ranks)
        if isinstance(start, Finished):
            # A run that was killed between its result and its end left its records.
            if ranks.number == 0 and kept.statistics:
                from fishr.training.recorder import Recorder

                Recorder(folder, experiment, text, kept.statistics, 0).clear()
            yield start
            return
        assert start is not None
        journal = Journal(folder, text, kept, start, where, ranks, checkpoint_seconds) if ranks.number == 0 else None
        with nullcontext() if journal is None else journal.open():
            begun = time.monotonic()
            for event in train(experiment, None, str(where), start.state, domains, ranks, model, by):
                yield event if journal is None else journal.write(event, time.monotonic() - begun)
                begun = time.monotonic()


@contextmanager
def _removed_if_refused(folder: Path) -> Generator[None]:
    """Remove the folder of a run whose first step is refused: there is nothing to resume."""
    try:
        yield
    except InputError:
        metrics = folder / METRICS
        if not metrics.exists() or metrics.stat().st_size == 0:
            shutil.rmtree(folder)
        raise


def _last_checkpoint(folder: Path, text: str, initial: TrainingState, steps: int) -> Checkpoint:
    start = Checkpoint(initial, text)
    # A link that leads nowhere is a lost checkpoint, not a run that has none yet.
    if present(folder / CHECKPOINT):
        start = load(folder / CHECKPOINT, initial, text)
        if start.state.step > steps:
            raise InputError(
                f"{folder / CHECKPOINT}: damaged, step is {start.state.step}, expected at most {steps}; "
                "use another checkpoint"
            )
    for name in (CHECKPOINT, RESULT):
        remove_leftovers(folder / name)
    # The result of a failed attempt is not that of the resumed run.
    (folder / RESULT).unlink(missing_ok=True)
    return start


def _finished(folder: Path, text: str) -> Finished | None:
    path = folder / RESULT
    if not present(path):
        return None
    try:
        result = json.loads(path.read_bytes())
        if result["status"] != "finished":
            return None
        scores = tuple(map(score_of, result["scores"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a result that fishr wrote; remove it to resume from the checkpoint") from error
    return Finished(load(checkpoint_of(folder), experiment_text=text).state, scores)
