"""Scores of a state, or of a run folder's checkpoint, on whole domains."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, evolve, frozen
from torch import Tensor, nn

from fishr.data.domains import Domain, Domains, Split, domain_title
from fishr.data.reading import chunks
from fishr.losses import accuracy_name, per_sample_losses, shares_correct
from fishr.matrix_products import has_avx512
from fishr.ranks import ALONE, Ranks, add_over_ranks
from fishr.tensor_trees import require_tree
from fishr.training.checkpoints import load
from fishr.training.compute import FourierConvolutions, resolve_device
from fishr.training.experiment import Experiment
from fishr.training.model import Model, build_model, evaluating, place
from fishr.training.run_folder import CONFIGURATION, checkpoint_of
from fishr.training.state import TrainingState, first_state, moving_weights, state_to, with_weights

# Images of a pass on a CPU: more leave the cache, and fewer do not pay the transforms of the weights.
_DIRECT, _FOURIER = 64, 256


@frozen
class DomainScore:
    """Loss and accuracy on one domain."""

    name: str
    split: Split
    loss: float  # mean over the samples
    accuracy: float  # 0 to 1; NaN where the loss predicts no class
    samples: int  # that have a label
    environment: str | None = None  # that the domain is a part of
    accuracy_name: str | None = None  # "correct labels" where each sample has several; None: "accuracy"

    @property
    def percentage(self) -> str:
        """The accuracy as a percentage, a dash for NaN."""
        return percentage(self.accuracy)

    @property
    def title(self) -> str:
        """Name for tables and figures, with that of the environment."""
        return domain_title(self.name, self.environment)


def percentage(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"


def score_entries(scores: Sequence[DomainScore]) -> list[dict[str, Any]]:
    """Return scores as plain values for ``json_text``, in which a loss or an accuracy that is NaN is null."""
    return [asdict(score, filter=lambda _, value: value is not None) for score in scores]


def score_of(entry: dict[str, Any]) -> DomainScore:
    """Return the score of an entry."""
    undefined: dict[str, Any] = {name: math.nan for name in ("loss", "accuracy") if entry[name] is None}
    return DomainScore(**(entry | undefined))


def evaluate(
    model: Model,
    experiment: Experiment,
    state: TrainingState,
    domains: Domains,
    chunk: int = 8192,
    ranks: Ranks = ALONE,
) -> tuple[DomainScore, ...]:
    """Return loss and accuracy on each training domain, then on each evaluation domain, in eval mode without a graph.

    An experiment with an average is evaluated with the weights of the average.

    ``model`` is on the domains' device; its modes are restored. ``chunk`` is the largest number of samples of one
    forward pass, which bounds memory. Of several ranks all call, each scores its share, and all get the same.

    Raises:
        RankLost: another rank is gone.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.model import build_model
        >>> from fishr.training.state import first_state
        >>> experiment = colored_digits()
        >>> domains = experiment.data(experiment.seed, None)
        >>> model = build_model(experiment, domains)
        >>> scores = evaluate(model, experiment, first_state(experiment, model, 2), domains)
        >>> [(score.name, score.samples) for score in scores]
        [('flip 0.2', 3250), ('flip 0.1', 3250), ('reversed', 497), ('gray', 497)]
    """
    state, domains = averaged(model, experiment, state), domains.labeled(experiment.loss)
    place(model, state.parameters, state.buffers)
    with torch.no_grad(), evaluating(model):
        return tuple(score_domain(model, experiment, domain, split, chunk, ranks) for domain, split in domains.by_split)


def evaluate_with_average(
    model: Model,
    experiment: Experiment,
    state: TrainingState,
    domains: Domains,
    ranks: Ranks = ALONE,
    evaluate: Callable[..., tuple[DomainScore, ...]] = evaluate,
) -> tuple[TrainingState, tuple[DomainScore, ...]]:
    """Return the state after its average has read the scores of the weights themselves, if it does, and its scores."""
    read = getattr(experiment.average, "evaluated", None)
    if read is not None:
        scores = evaluate(model, experiment, evolve(state, average=None), domains, ranks=ranks)
        average = read(state.average, scores, state.step)
        require_tree(average, "average state")
        state = evolve(state, average=average)
    return state, evaluate(model, experiment, state, domains, ranks=ranks)


def averaged_weights(model: Model, experiment: Experiment, state: TrainingState) -> dict[str, Tensor] | None:
    """Return the weights that the experiment's average evaluates, by name; None without an average."""
    if experiment.average is None or state.average is None:
        return None
    return experiment.average.weights(state.average, moving_weights(model, state.parameters, state.buffers))


def averaged(model: Model, experiment: Experiment, state: TrainingState) -> TrainingState:
    """Return the state with the weights that the experiment's average evaluates, and without the average's state."""
    found = averaged_weights(model, experiment, state)
    return state if found is None else with_weights(state, found)


def score_domain(
    model: Model,
    experiment: Experiment,
    domain: Domain,
    split: Split,
    chunk: int = 8192,
    ranks: Ranks = ALONE,
    see: Callable[[Tensor], object] = lambda logits: None,
) -> DomainScore:
    """Return the score of the modules as they are on labeled samples; ``see`` is called with each chunk's logits."""
    name = accuracy_name(experiment.loss, domain.labels)
    device, samples = domain.labels.device, len(domain.labels)
    # Apple's GPUs have no float64.
    total = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    weights = next((p.dtype for p in model.head.parameters()), torch.float32)
    rows = ranks.share(range(samples))
    for inputs, labels in chunks(domain if ranks.alone else domain.part(rows), chunk) if rows else ():
        with experiment.compute.products(), experiment.compute.autocast(device):
            features = _features(model.featurizer, inputs, small=isinstance(domain.inputs, Tensor))
        logits = model.head(features.to(weights))
        see(logits)
        losses = per_sample_losses(experiment.loss, logits, labels)
        right = shares_correct(experiment.loss, logits, labels)
        total += torch.stack([losses.to(total.dtype).sum(), right.to(total.dtype).sum()])
    mean = add_over_ranks(total, ranks).cpu() / samples
    named = None if name == "accuracy" else name
    return DomainScore(domain.name, split, float(mean[0]), float(mean[1]), samples, domain.environment, named)


def _features(featurizer: nn.Module, inputs: Tensor, small: bool) -> Tensor:
    """Return features; on a CPU, of few images at a time where the featurizer convolves them."""
    convolves = any(isinstance(module, nn.Conv2d) for module in featurizer.modules())
    if inputs.device.type != "cpu" or inputs.ndim != 4 or not convolves:
        return featurizer(inputs)
    # Images of files take 0.74 to 0.93 of the time with channels last, small tensors with AVX-512 alone.
    direct = not small or has_avx512()
    some = _DIRECT if direct else _FOURIER
    if direct:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with nullcontext() if direct else FourierConvolutions():
        if len(inputs) < 2 * some:
            return featurizer(inputs)
        return torch.cat([*map(featurizer, inputs.tensor_split(len(inputs) // some))])


def score_checkpoint(
    experiment: Experiment, folder: Path, data_dir: Path | None = None, device: str = "cpu"
) -> tuple[int, tuple[DomainScore, ...]]:
    """Return the step of a run folder's last checkpoint, and its scores on every domain of the experiment's data.

    Raises:
        InputError: no checkpoint, one of another experiment, or missing data.
    """
    model, state, domains = open_run(experiment, folder, data_dir, resolve_device(device))
    return state.step, evaluate(model, experiment, state, domains)


def open_run(
    experiment: Experiment, folder: Path, data_dir: Path | None, device: torch.device
) -> tuple[Model, TrainingState, Domains]:
    """Return a run's modules, its data and the state that its last checkpoint evaluates, without the optimizer's."""
    path = checkpoint_of(folder)
    domains = experiment.data(experiment.seed, data_dir).to(device)
    model = build_model(experiment, domains)
    first = first_state(experiment, model, len(domains.training))
    template = evolve(first, optimizer=None, descent=None, average=None)
    checkpoint = load(path, template, (folder / CONFIGURATION).read_bytes().decode())
    return model, state_to(checkpoint.evaluated, device), domains
