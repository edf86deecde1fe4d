"""The card of an exported model: how to use it, what it was trained on, and how well it does there."""

import json
import platform
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import fishr
from fishr.inference.named_weights import NamedWeights
from fishr.inference.trained_model import TrainedModel
from fishr.losses import outputs_of
from fishr.training.evaluation import DomainScore, score_of
from fishr.training.explanation import run_outline
from fishr.training.run_folder import AVERAGE, CONFIGURATION, METRICS, RESULT, read_metrics


def model_card(model: TrainedModel, run: Path, path: Path, form: str, weights: NamedWeights | None) -> str:
    """Return the card of a file as Markdown."""
    experiment = model.experiment
    configuration = (run / CONFIGURATION).read_text(encoding="utf-8")
    kind = f"classifier of {model.classes} classes" if model.label_columns is None else "model of numbers or labels"
    parts = [
        f"# {experiment.name}",
        f"A {kind}, after {model.step} of {experiment.steps} steps with seed "
        f"{experiment.seed}, trained by fishr and written to `{path.name}`.",
        *_ingredients(run),
        "## Use",
        f"```python\n{_code(model, path, form, weights)}\n```",
        _inputs(model),
        _classes(model),
        "## Accuracy",
        _numbers(run, model.step),
        "## Method",
        f"```\n{run_outline(experiment)}\n```",
        "## Configuration",
        f"```toml\n{configuration.rstrip()}\n```",
        "## Versions",
        tabulate(
            _versions(run), ("program", "trained with", "exported with"), tablefmt="github", disable_numparse=True
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _ingredients(run: Path) -> list[str]:
    """Return a paragraph on the runs that a mean is of."""
    if not (run / AVERAGE).is_file():
        return []
    found = json.loads((run / AVERAGE).read_bytes())
    parts = [f"{one['share']:.4g} of `{Path(one['run']).name}`" for one in found["runs"] if one["share"]]
    return [
        f"The weights are a {found['form']} of {len(parts)} runs: {', '.join(parts)}. The first one's settings follow."
    ]


def _code(model: TrainedModel, path: Path, form: str, weights: NamedWeights | None) -> str:
    shape = ", ".join(map(str, model.shape))
    example = f"logits = network(torch.zeros(1, {shape}))"
    if weights is None:
        module = "jit" if form == "torchscript" else "export"
        read = f"torch.{module}.load({path.name!r})" + (".module()" if form == "export" else "")
        return f"import torch\n\nnetwork = {read}\n{example}"
    name, code = repr(path.name), weights.code
    reading = f"load_file({name})" if form == "safetensors" else f"torch.load({name})"
    imports = "import torch\n" + ("from safetensors.torch import load_file\n" if form == "safetensors" else "")
    return f"{imports}{code}\nnetwork.load_state_dict({reading})\n{example.replace('network(', 'network.eval()(')}"


def _inputs(model: TrainedModel) -> str:
    shape = ", ".join(map(str, model.shape))
    found = model.preprocessing
    if found is None:
        return f"Inputs are float32 [N, {shape}], as the data set of the configuration makes them."
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (found.mean, found.std))
    return (
        f"Inputs are float32 [N, {shape}]: RGB images, each resized as a whole to {found.size} × {found.size} pixels "
        f"({found.resizing}), on a scale from 0 to 1, minus the mean ({mean}), divided by the standard deviation "
        f"({std})."
    )


def _classes(model: TrainedModel) -> str:
    if model.label_columns is not None:
        return f"A sample of the data has {model.label_columns} labels in floating point, one for each output."
    names = enumerate(model.class_names or ())
    text = "Classes: " + ", ".join(f"{index} {name}" for index, name in names) + "."
    if model.class_names is None:
        text = f"The classes have no names; they are numbered from 0 to {model.classes - 1}."
    single = outputs_of(model.experiment.loss, model.classes) == 1
    return text + (" The single logit is that of class 1." if single else "")


def _numbers(run: Path, step: int) -> str:
    scores = _scores(run, step)
    if not scores:
        return f"These weights were not evaluated; `fishr evaluate {run.name}` scores them where their data are."
    name = scores[0].accuracy_name or "accuracy"
    rows = [(s.title, s.split, s.samples, s.percentage, f"{s.loss:.4f}") for s in scores]
    return tabulate(rows, ("domain", "split", "samples", name, "loss"), tablefmt="github", disable_numparse=True)


def _scores(run: Path, step: int) -> list[DomainScore]:
    """Return the scores of the weights after ``step`` updates, if they were evaluated."""
    found = list[Any]()
    if (run / METRICS).is_file():
        for entry in read_metrics(run):
            if entry["step"] == step and "scores" in entry:
                found = entry["scores"]
    return [score_of(entry) for entry in found]


def _versions(run: Path) -> list[tuple[str, str, str]]:
    now = {"python": platform.python_version(), "torch": str(torch.__version__), "fishr": fishr.__version__}
    then = json.loads((run / RESULT).read_bytes())["versions"] if (run / RESULT).is_file() else {}
    return [(name, str(then.get(name, "unknown")), now.get(name, "")) for name in {**then, **now}]
