"""Scores of a finished or interrupted run, from its folder."""

from pathlib import Path

from fishr.training.checkpoint_path import checkpoint_of
from fishr.training.checkpoints import check_experiment, load
from fishr.training.evaluation import DomainScore, evaluate
from fishr.training.experiment import Experiment
from fishr.training.folders import CONFIGURATION
from fishr.training.loop import domains_to, resolve_device
from fishr.training.state import build_model, first_state, state_to, without_optimizer


def score_checkpoint(
    experiment: Experiment, folder: Path, data_dir: Path | None = None, device: str = "cpu"
) -> tuple[int, tuple[DomainScore, ...]]:
    """Score a run folder's last checkpoint on every domain of the experiment's data.

    Args:
        experiment: the folder's.
        folder: of the run.
        data_dir: where data files lie, for data that has files.
        device: as for ``train``.

    Returns:
        The checkpoint's step and the scores.

    Raises:
        InputError: no checkpoint, one of another experiment, or missing data.

    Example:
        >>> import tempfile, attrs
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.records import run
        >>> experiment = attrs.evolve(colored_digits(), steps=1)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     events = list(run(experiment, Path(parent, "run"), experiment_text=""))
        ...     step, scores = score_checkpoint(experiment, Path(parent, "run"))
        >>> step, [score.name for score in scores]
        (1, ['flip 0.2', 'flip 0.1', 'reversed', 'gray'])
    """
    path = checkpoint_of(folder)
    where = resolve_device(device)
    domains = domains_to(experiment.data(experiment.seed, data_dir), where)
    model = build_model(experiment, domains)
    template = without_optimizer(first_state(experiment, model, len(domains.training)))
    checkpoint = load(path, template)
    check_experiment(path, checkpoint, (folder / CONFIGURATION).read_bytes().decode())
    state = state_to(checkpoint.state, where)
    return state.step, evaluate(model, experiment, state, domains)
