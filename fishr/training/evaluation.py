"""Scores of a state, or of a run folder's checkpoint, on whole domains."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from attrs import asdict, evolve, frozen

from fishr.data.domains import Domain, Domains
from fishr.data.reading import chunks
from fishr.losses import per_sample_losses, predictions_of
from fishr.ranks import ALONE, Ranks, add_over_ranks
from fishr.training.checkpoints import load
from fishr.training.compute import resolve_device
from fishr.training.experiment import Experiment
from fishr.training.model import Model, evaluating, place
from fishr.training.run_folder import CONFIGURATION, checkpoint_of
from fishr.training.state import TrainingState, build_model, first_state, state_to

Split = Literal["training", "evaluation"]


@frozen
class DomainScore:
    """Loss and accuracy on one domain.

    Args:
        name: of the domain.
        split: "training" if the domain was trained on, else "evaluation".
        loss: mean over the samples.
        accuracy: share of samples whose predicted class is the label, 0 to 1.
        samples: number of samples.
        environment: environment that the domain is a part of; None if it is one itself.

    Example:
        >>> DomainScore("reversed", "evaluation", loss=0.7, accuracy=0.58, samples=497).accuracy
        0.58
    """

    name: str
    split: Split
    loss: float
    accuracy: float
    samples: int
    environment: str | None = None

    @property
    def title(self) -> str:
        """Name for tables and figures, with that of the environment."""
        return self.name if self.environment is None else f"{self.name} ({self.environment})"


def score_entries(scores: Sequence[DomainScore]) -> list[dict[str, Any]]:
    """Return scores as plain values for JSON, which has no infinity: the loss of a model that diverged is null."""
    entries = [asdict(score, filter=lambda _, value: value is not None) for score in scores]
    return [e | {"loss": e["loss"] if math.isfinite(e["loss"]) else None} for e in entries]


def score_of(entry: dict[str, Any]) -> DomainScore:
    """Return the score of an entry."""
    loss: Any = math.nan if entry["loss"] is None else entry["loss"]
    return DomainScore(**(entry | {"loss": loss}))


def evaluate(
    model: Model,
    experiment: Experiment,
    state: TrainingState,
    domains: Domains,
    chunk: int = 8192,
    ranks: Ranks = ALONE,
) -> tuple[DomainScore, ...]:
    """Return loss and accuracy on each domain, in eval mode and without a graph.

    Args:
        model: the experiment's modules, on the domains' device; their modes are restored.
        experiment: for its loss and precision.
        state: the weights.
        domains: the data.
        chunk: most samples of one forward pass, which bounds memory; large inputs take fewer.
        ranks: the processes that share each domain's samples; all of them call, and get the same.

    Returns:
        One score for each training domain, then one for each evaluation domain.

    Raises:
        RankLost: another rank is gone.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.state import build_model, first_state
        >>> experiment = colored_digits()
        >>> domains = experiment.data(experiment.seed, None)
        >>> model = build_model(experiment, domains)
        >>> scores = evaluate(model, experiment, first_state(experiment, model, 2), domains)
        >>> [(score.name, score.samples) for score in scores]
        [('flip 0.2', 3250), ('flip 0.1', 3250), ('reversed', 497), ('gray', 497)]
    """
    place(model, state.parameters, state.buffers)
    splits: tuple[tuple[Split, tuple[Domain, ...]], ...] = (
        ("training", domains.training),
        ("evaluation", domains.evaluation),
    )
    with torch.no_grad(), evaluating(model):
        return tuple(
            _score(model, experiment, domain, split, chunk, ranks) for split, part in splits for domain in part
        )


def _score(model: Model, experiment: Experiment, domain: Domain, split: Split, chunk: int, ranks: Ranks) -> DomainScore:
    device, samples = domain.labels.device, len(domain.labels)
    # Apple's GPUs have no float64.
    total = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    weights = next((p.dtype for p in model.head.parameters()), torch.float32)
    rows = ranks.share(range(samples))
    for inputs, labels in chunks(domain if ranks.alone else domain.part(rows), chunk) if rows else ():
        with experiment.compute.products(), experiment.compute.autocast(device):
            features = model.featurizer(inputs)
        logits = model.head(features.to(weights))
        losses = per_sample_losses(experiment.loss, logits, labels)
        right = predictions_of(experiment.loss, logits) == labels
        total += torch.stack([losses.to(total.dtype).sum(), right.to(total.dtype).sum()])
    mean = add_over_ranks(total, ranks).cpu() / samples
    return DomainScore(domain.name, split, float(mean[0]), float(mean[1]), samples, domain.environment)


def score_checkpoint(
    experiment: Experiment, folder: Path, data_dir: Path | None = None, device: str = "cpu"
) -> tuple[int, tuple[DomainScore, ...]]:
    """Score a run folder's last checkpoint on every domain of the experiment's data.

    Args:
        experiment: the folder's.
        folder: run folder.
        data_dir: folder of data files, for data that has files.
        device: as for ``train``.

    Returns:
        The checkpoint's step and the scores.

    Raises:
        InputError: no checkpoint, one of another experiment, or missing data.

    Example:
        >>> import tempfile, attrs
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.runs import run
        >>> experiment = attrs.evolve(colored_digits(), steps=1)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     events = list(run(experiment, Path(parent, "run"), experiment_text=""))
        ...     step, scores = score_checkpoint(experiment, Path(parent, "run"))
        >>> step, [score.name for score in scores]
        (1, ['flip 0.2', 'flip 0.1', 'reversed', 'gray'])
    """
    path = checkpoint_of(folder)
    where = resolve_device(device)
    domains = experiment.data(experiment.seed, data_dir).to(where)
    model = build_model(experiment, domains)
    template = evolve(first_state(experiment, model, len(domains.training)), optimizer=None)
    checkpoint = load(path, template, (folder / CONFIGURATION).read_bytes().decode())
    state = state_to(checkpoint.state, where)
    return state.step, evaluate(model, experiment, state, domains)
