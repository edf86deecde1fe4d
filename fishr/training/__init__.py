"""Experiments and their runs: objective, optimizers, the pure step, the loop, checkpoints, run folders."""

from fishr.training.checkpoints import Checkpoint, load, save
from fishr.training.compute import Compute
from fishr.training.evaluation import DomainScore, evaluate
from fishr.training.experiment import Experiment
from fishr.training.explanation import LossExplanation, explain_objective, loss_outline
from fishr.training.frozen_features import Frozen, domain_features, on_features
from fishr.training.keeping import Keeping, Recording, kept_checkpoints
from fishr.training.launch import Refused, agreed, from_first, joined
from fishr.training.loop import Evaluated, Event, Finished, Started, Stepped, resolve_device, train
from fishr.training.model import Model, place
from fishr.training.objective import Loss, Objective
from fishr.training.optimizers import SGD, Adam, Optimizer, OptimizerState
from fishr.training.records import run
from fishr.training.scoring import score_checkpoint
from fishr.training.state import TrainingState, build_model, first_state, initial_state
from fishr.training.step import NotFinite, StepRecord, TermRecord, advance

__all__ = [
    "SGD",
    "Adam",
    "Checkpoint",
    "Compute",
    "DomainScore",
    "Evaluated",
    "Event",
    "Experiment",
    "Finished",
    "Frozen",
    "Keeping",
    "Loss",
    "LossExplanation",
    "Model",
    "NotFinite",
    "Objective",
    "Optimizer",
    "OptimizerState",
    "Recording",
    "Refused",
    "Started",
    "StepRecord",
    "Stepped",
    "TermRecord",
    "TrainingState",
    "advance",
    "agreed",
    "build_model",
    "domain_features",
    "evaluate",
    "explain_objective",
    "first_state",
    "from_first",
    "initial_state",
    "joined",
    "kept_checkpoints",
    "load",
    "loss_outline",
    "on_features",
    "place",
    "resolve_device",
    "run",
    "save",
    "score_checkpoint",
    "train",
]
