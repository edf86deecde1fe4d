from .artifacts import Artifacts, Keeping, Recording, kept_checkpoints, snapshots
from .checkpoints import Checkpoint, load, save
from .compute import Compute, resolve_device
from .evaluation import DomainScore, evaluate, score_checkpoint
from .experiment import Experiment
from .explanation import LossExplanation, explain_objective, loss_outline, run_outline
from .frozen_features import Frozen, domain_features, on_features
from .lars import LARS
from .launch import joined
from .layers_above import LayersAbove
from .loop import Evaluated, Event, Finished, Started, Stepped, train
from .model import Model, build_model, place
from .objective import Loss, Objective
from .optimizers import Adam, AdamW, Optimizer, OptimizerState
from .owned import Owned
from .runs import run
from .sgd import SGD
from .state import TrainingState, first_state, initial_state
from .step import NotFinite, StepRecord, TermRecord, advance

__all__ = [
    "LARS",
    "SGD",
    "Adam",
    "AdamW",
    "Artifacts",
    "Checkpoint",
    "Compute",
    "DomainScore",
    "Evaluated",
    "Event",
    "Experiment",
    "Finished",
    "Frozen",
    "Keeping",
    "LayersAbove",
    "Loss",
    "LossExplanation",
    "Model",
    "NotFinite",
    "Objective",
    "Optimizer",
    "OptimizerState",
    "Owned",
    "Recording",
    "Started",
    "StepRecord",
    "Stepped",
    "TermRecord",
    "TrainingState",
    "advance",
    "build_model",
    "domain_features",
    "evaluate",
    "explain_objective",
    "first_state",
    "initial_state",
    "joined",
    "kept_checkpoints",
    "load",
    "loss_outline",
    "on_features",
    "place",
    "resolve_device",
    "run",
    "run_outline",
    "save",
    "score_checkpoint",
    "snapshots",
    "train",
]
