"""Runs whose weights may be averaged: of one architecture, on the same inputs, from the same first weights."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from attrs import evolve
from torch import Tensor

from fishr.errors import InputError
from fishr.inference.trained_model import SavedRun, read_run
from fishr.models.weight_files import misfits
from fishr.training.artifacts import snapshot_path
from fishr.training.checkpoints import load
from fishr.training.model import build_modules

# Weights of a head that is one linear layer; its loss is convex.
_CONVEX = {"head.weight", "head.bias"}


def first_run(runs: Sequence[Path], plugins: Sequence[str]) -> SavedRun:
    """Return the first of two or more different runs."""
    if len(runs) < 2:
        raise InputError(f"runs: got {len(runs)}, expected two or more run folders to average")
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError("runs: got one twice, expected each once")
    return read_run(runs[0], plugins)


def fitting_runs(runs: Sequence[Path], plugins: Sequence[str]) -> Iterator[SavedRun]:
    """Yield runs one at a time, each checked against the first."""
    first = read_run(runs[0], plugins)
    begun = _begun_at(first)
    yield first
    for run in runs[1:]:
        saved = fitting(first, read_run(run, plugins))
        own = None if begun is None else _begun_at(saved)
        if begun is not None and own is not None:
            moved = [name for name in begun if name not in _CONVEX and not torch.equal(begun[name], own[name])]
            if moved:
                raise InputError(
                    f"{run}: its network began at other weights than that of {first.run} ({moved[0]}), and the mean of "
                    "two such networks computes nothing; train runs from the same seed or from the same weights"
                )
        yield saved


def fitting(first: SavedRun, saved: SavedRun) -> SavedRun:
    """Return a run; refuse one whose weights do not fit those of the first."""
    for name, got, expected in misfits(first.weights, saved.weights):
        raise InputError(
            f"{saved.run}: {name} has shape {got}, in {first.run} {expected}; average runs of one architecture"
        )
    if saved.signature != first.signature:
        raise InputError(
            f"{saved.run}: got {saved.signature}, in {first.run} {first.signature}; average runs on the same inputs "
            "and classes"
        )
    return saved


def _begun_at(saved: SavedRun) -> dict[str, Tensor] | None:
    try:
        return first_weights(saved)
    except InputError as error:
        message = f"{saved.run}: its first weights are not compared with those of the other runs ({error})"
        warnings.warn(message, stacklevel=2)
        return None


def first_weights(saved: SavedRun) -> dict[str, Tensor]:
    """Return the weights that a run began at, from its snapshot or made again."""
    kept = snapshot_path(saved.run, 0)
    if kept.is_file():
        state = load(kept).state
        return state.parameters | state.buffers
    experiment = evolve(saved.experiment, compute=evolve(saved.experiment.compute, compile=False))
    signature = saved.signature
    model = build_modules(experiment, signature.shape, signature.outputs(experiment.loss), torch.device("cpu"))
    return {name: p.detach() for name, p in model.parameters().items()} | model.buffers()
