"""Sections of a run's objective, in words and as a formula, with its model, and of all other settings."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from fishr.inference import load_model
from fishr.penalties import ERM, Scaled, Stateless
from fishr.reports.page import Facts, Listing, Section, Table, Text
from fishr.reports.run_record import RunRecord
from fishr.training.experiment import Experiment
from fishr.training.explanation import run_outline
from fishr.training.run_folder import CHECKPOINT

_PARTS = ("data", "featurizer", "head", "loss", "optimizer", "batches")


def model_section(experiment: Experiment, folder: Path, plugins: Sequence[str] = ()) -> Section:
    meanings = Table(("part", "meaning"), [(name, _meaning(part)) for name, part in _terms(experiment).items()])
    parts = {name: _brief(getattr(experiment, name)) for name in _PARTS}
    blocks = [Text(_in_words(experiment)), Listing(run_outline(experiment)), meanings]
    return Section("Objective and model", [*blocks, Facts(parts | _sizes(folder, plugins))])


def setting_section(record: RunRecord) -> Section:
    result, experiment = record.result, record.experiment
    facts = {"steps": f"{experiment.steps}", "seed": f"{experiment.seed}"}
    if result:
        facts |= {"device": str(result.get("device")), "time": f"{result.get('seconds', math.nan):.4g} s"}
        facts |= {name: str(value) for name, value in result.get("versions", {}).items()}
    return Section("Settings", [Facts(facts), Listing(record.text, "config.toml")])


def _in_words(experiment: Experiment) -> str:
    objective, loss = experiment.objective, type(experiment.loss).__name__
    risk = objective.risk
    words = f"the mean {loss} over {risk.over}" if isinstance(risk, ERM) else f"a risk of {loss}, {_name(risk)}"
    words += "".join(f", plus the penalty {name} times its weight" for name in objective.penalty.terms)
    words += ", plus the squared norm of the weights times a factor" if objective.l2 else ""
    by = f"{_name(experiment.optimizer)} minimizes {words}."
    return f"{by} {_name(experiment.descent)} makes each update." if experiment.descent is not None else by


def _terms(experiment: Experiment) -> dict[str, Any]:
    found = {"risk": experiment.objective.risk, **experiment.objective.penalty.terms}
    others = {name: getattr(experiment, name) for name in ("transform", "descent", "average")}
    return found | {name: part for name, part in others.items() if part is not None}


def _meaning(part: Any) -> str:
    """Return the first line of the documentation of a part, also of a user's own."""
    if isinstance(part, Scaled):
        return _meaning(part.penalty)
    documented = part.function if isinstance(part, Stateless) else part if hasattr(part, "__name__") else type(part)
    return (documented.__doc__ or _name(part)).strip().splitlines()[0].replace("``", "")


def _name(part: Any) -> str:
    return getattr(part.function if isinstance(part, Stateless) else part, "__name__", type(part).__name__)


def _sizes(folder: Path, plugins: Sequence[str]) -> dict[str, str]:
    """Return the numbers of parameters of the model, if the run has a checkpoint yet."""
    if not (folder / CHECKPOINT).exists():
        return {}
    model = load_model(folder, plugins=plugins)
    every, trained = list(model.parameters()), [p for p in model.parameters() if p.requires_grad]
    counts = {
        "parameters": every,
        "trained parameters": trained,
        "parameters of the head": list(model.head.parameters()),
    }
    return {name: f"{sum(p.numel() for p in found):,}" for name, found in counts.items()}


def _brief(part: Any) -> str:
    """Return a part of a configuration with the settings that are not the defaults."""
    if not attrs.has(type(part)):
        return getattr(part, "__name__", repr(part))
    fields = [(one.name, getattr(part, one.name), one.default) for one in attrs.fields(type(part)) if one.init]
    shown = ", ".join(f"{name}={_brief(value)}" for name, value, default in fields if repr(value) != repr(default))
    return f"{type(part).__name__}({shown})" if shown else type(part).__name__
