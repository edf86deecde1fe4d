"""The model of a run as a module of torch, built without the run's data."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from fishr.configuration.run_file import load_run_file
from fishr.errors import InputError
from fishr.inference.derived_signature import derived
from fishr.losses import Loss, predictions_of
from fishr.methods.miro import Anchored, AnchoredNetwork
from fishr.models.featurizers import without_weights
from fishr.training.checkpoints import load
from fishr.training.compute import resolve_device
from fishr.training.experiment import Experiment
from fishr.training.model import build_modules, place
from fishr.training.run_folder import CONFIGURATION, checkpoint_of
from fishr.training.signature import Signature
from fishr.training.state import TrainingState, state_to


class TrainedModel(nn.Module):
    """The featurizer and the head of a run, and what is known of their inputs and classes.

    Args:
        featurizer: Module from inputs [N, *shape] to features [N, F].
        head: Module from features to logits [N, outputs].
        experiment: The experiment that trained them.
        signature: Shape of an input, classes, their names, and the preprocessing of images.
        step: Number of updates of the weights.

    Attributes:
        shape: Shape of one input.
        classes: C, the number of classes, or of labels in floating point that a sample has.
        label_columns: C if samples have labels in floating point; None: a class.
        class_names: Name of each class; None where the data had none.
        preprocessing: From an image of any size to an input; None where the data were no images in files.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> signature = Signature((4,), classes=2, class_names=("no", "yes"))
        >>> model = TrainedModel(nn.Flatten(), nn.Linear(4, 1), colored_digits(), signature, step=0)
        >>> model.probabilities(torch.zeros(3, 4)).shape, model.label(1)
        (torch.Size([3, 2]), 'yes')
    """

    def __init__(
        self, featurizer: nn.Module, head: nn.Module, experiment: Experiment, signature: Signature, step: int
    ) -> None:
        super().__init__()
        self.featurizer, self.head = featurizer, head
        self.experiment, self.step = experiment, step
        self.shape, self.classes, self.label_columns = signature.shape, signature.classes, signature.label_columns
        self.class_names, self.preprocessing = signature.class_names, signature.preprocessing

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(chain(self.parameters(), self.buffers()), torch.empty(0)).device

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits [N, outputs] of inputs [N, *shape]."""
        return self.head(self.featurizer(inputs))

    def probabilities(self, inputs: Tensor) -> Tensor:
        """Return the probability of each class [N, C]: the softmax of the logits, or (1 − σ, σ) of a single one.

        Raises:
            InputError: the run's samples have numbers or several labels, not a class.
        """
        return probabilities_of(self.experiment.loss, self(inputs))

    def label(self, index: int) -> str:
        """Return the name of a class, or its number where it has no name."""
        return str(index) if self.class_names is None else self.class_names[index]


def probabilities_of(loss: Loss, logits: Tensor) -> Tensor:
    """Return the probabilities [N, C] of logits [N, outputs]; refuse a loss without a class a sample."""
    if predictions_of(loss, logits).ndim == 2:
        raise InputError("loss: got several labels a sample, expected one class; use the sigmoid of the logits")
    return logits.softmax(1) if logits.shape[1] > 1 else torch.cat([-logits, logits], 1).sigmoid()


def load_model(run: Path | str, *, device: str = "cpu", plugins: Iterable[str] = ()) -> TrainedModel:
    """Return the model of a run's last checkpoint, in eval mode; neither the data nor published weights are read.

    A run that trained in 16 bits has float32 weights, and the model computes in float32.

    Args:
        run: A run folder; also that of a sweep's job that kept its weights.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto".
        plugins: Modules that the configuration of the run names, but for those of its data.

    Raises:
        InputError: No such run, no checkpoint yet, a damaged one, or a run of an early version whose shape of inputs is
            not known.

    Example:
        >>> import tempfile
        >>> from fishr.configuration import dumps
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training import run
        >>> experiment = evolve(colored_digits(), steps=2)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = Path(parent, "run")
        ...     _ = list(run(experiment, folder, experiment_text=dumps(experiment)))
        ...     model = load_model(folder)
        >>> model(torch.zeros(3, *model.shape)).shape, model.training
        (torch.Size([3, 1]), False)
    """
    folder, where = Path(run), resolve_device(device)
    saved = read_run(folder, plugins)
    experiment, signature, state = _bare(saved.experiment), saved.signature, state_to(saved.state, where)
    model = build_modules(experiment, signature.shape, signature.outputs(experiment.loss), where)
    try:
        place(model, state.parameters, state.buffers)
    except InputError as error:
        raise InputError(f"{checkpoint_of(folder)}: {error}") from error
    featurizer, used = model.featurizer, saved.experiment
    if isinstance(featurizer, AnchoredNetwork) and isinstance(used.featurizer, Anchored):
        # The copy of the first weights is for training alone.
        featurizer, used = featurizer.network, evolve(used, featurizer=used.featurizer.inner)
    return TrainedModel(featurizer, model.head, used, signature, state.step).eval()


@frozen(eq=False)
class SavedRun:
    """The last checkpoint of a run, with the weights that are evaluated, on the CPU."""

    run: Path
    experiment: Experiment
    state: TrainingState
    signature: Signature

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by name."""
        return self.state.parameters | self.state.buffers


def read_run(folder: Path, plugins: Iterable[str] = ()) -> SavedRun:
    """Return what is saved of a run's model; neither the data nor published weights are read."""
    if not (folder / CONFIGURATION).is_file():
        raise InputError(f"{folder}: not a run folder, it has no {CONFIGURATION}; give the folder that train made")
    experiment = load_run_file(folder / CONFIGURATION, (), plugins)
    path = checkpoint_of(folder)
    checkpoint = load(path, experiment_text=(folder / CONFIGURATION).read_bytes().decode())
    signature = checkpoint.signature or derived(_bare(experiment), checkpoint.state, path)
    return SavedRun(folder, experiment, checkpoint.evaluated, signature)


def _bare(experiment: Experiment) -> Experiment:
    """Return an experiment whose modules are built without files of weights and not compiled."""
    compute = evolve(experiment.compute, compile=False)
    return evolve(experiment, featurizer=without_weights(experiment.featurizer), compute=compute)
