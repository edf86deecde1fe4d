"""The terms of an experiment's loss: at one step, with what each term reads, or over a whole run."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from fishr.observation import observe
from fishr.penalties import ERM, Explanation, Stateless
from fishr.penalties import explain as explain_penalty
from fishr.penalties.combinators import weight_at
from fishr.ranks import ALONE
from fishr.seeding import named_generator
from fishr.tensor_trees import named_tensors
from fishr.training.experiment import Experiment
from fishr.training.learning_rates import StepOptimizer, by_layer
from fishr.training.model import Model, build_model
from fishr.training.objective import Objective
from fishr.training.state import first_state


@frozen
class LossExplanation:
    """The terms of a loss at a step, which print as a formula and a table."""

    risk: str  # "domains" or "samples" of ``ERM``; the name of any other
    l2: float  # factor of Σ‖w‖²
    divided_by: float  # divisor of the whole loss
    fresh_optimizer: bool  # whether the optimizer's state is reset before the update
    penalty: Explanation
    learning_rates: dict[str, float]  # by layer, where a schedule or factors change the optimizer's
    parts: dict[str, str]  # of the step, beside the loss and the optimizer

    def __str__(self) -> str:
        weights = {term.name: term.weight for term in self.penalty.terms}
        loss = _formula(self.penalty.step, self.risk, self.l2, weights, self.divided_by)
        fresh = "\nthe optimizer's state is reset before this step's update" if self.fresh_optimizer else ""
        rates = ", ".join(f"{rate:g} ({layer})" for layer, rate in self.learning_rates.items())
        rates = f"\nlearning rate at step {self.penalty.step} = {rates}" if rates else ""
        parts = "".join(f"\n{name}: {part}" for name, part in self.parts.items())
        terms = f"\n\n{self.penalty}" if self.penalty.terms else ""
        return f"{loss}{rates}{fresh}{parts}{terms}"


def loss_outline(objective: Objective, steps: int) -> str:
    """Return the loss's formula at the first and the last step and at each term's largest weight, and what is logged.

    A step with the weights of the line before is left out.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> print(loss_outline(attrs.evolve(colored_digits().objective, l2=0.0), steps=200))
        loss at step 0 = risk (mean over domains) + fishr
        loss at step 120 = (risk (mean over domains) + 91257.2 · fishr) / 91257.2
        logged: the loss as divided; each term times its weight, not divided
    """
    terms, risk = objective.penalty.terms, _risk_name(objective)
    # In a longer run too, a schedule has risen by then.
    early = range(min(steps, 100_000))
    peaks = [max(early, key=partial(weight_at, term)) for term in terms.values()]
    shown = dict[int, dict[str, float]]()
    for step in sorted({0, *peaks, steps - 1}):
        weights = {name: weight_at(term, step) for name, term in terms.items()}
        if weights not in list(shown.values())[-1:]:
            shown[step] = weights
    divisors = {step: objective.divisor(weights.values()) for step, weights in shown.items()}
    lines = [_formula(step, risk, objective.l2, shown[step], divisors[step]) for step in shown]
    if max(divisors.values()) > 1:
        lines.append("logged: the loss as divided; each term times its weight, not divided")
    elif terms:
        lines.append("logged: each term times its weight")
    return "\n".join(lines)


def run_outline(experiment: Experiment) -> str:
    """Return the outline of the loss, and a risk in place of the mean one, the transform, the descent and the average.

    Example:
        >>> import attrs
        >>> from fishr.averages import EMA
        >>> from fishr.protocols import colored_digits
        >>> print(run_outline(attrs.evolve(colored_digits("erm"), average=EMA())))
        loss at step 0 = risk (mean over domains) + 0.00110795 · Σ‖w‖²
        average: EMA(decay=0.999, start=0), evaluated in place of the weights
    """
    lines = [f"{name}: {part}" for name, part in _parts(experiment).items()]
    return "\n".join([loss_outline(experiment.objective, experiment.steps), *lines])


def _parts(experiment: Experiment) -> dict[str, str]:
    risk = experiment.objective.risk
    found: dict[str, Any] = {} if isinstance(risk, ERM) else {"risk": risk}
    found |= {name: getattr(experiment, name) for name in ("transform", "descent", "average")}
    parts = {name: getattr(part, "__name__", repr(part)) for name, part in found.items() if part is not None}
    if "average" in parts:
        parts["average"] += ", evaluated in place of the weights"
    if experiment.passes:
        parts["passes"] = "one of each domain, whose samples batch normalization sees alone"
    return parts


def _remembered(experiment: Experiment, model: Model, domains: int) -> dict[str, str]:
    """Return the parts, with the size of the risk's memory."""
    parts, memory = _parts(experiment), first_state(experiment, model, domains).penalty.get("risk")
    numbers = sum(tensor.numel() for _, tensor in named_tensors(memory))
    return parts | {"risk": f"{parts['risk']}, {numbers} numbers remembered"} if numbers else parts


def _risk_name(objective: Objective) -> str:
    """Return what ``ERM`` averages over, or the name of a risk in its place."""
    risk: Any = objective.risk
    if isinstance(risk, ERM):
        return risk.over
    return risk.function.__name__ if isinstance(risk, Stateless) else type(risk).__name__


def _formula(step: int, risk: str, l2: float, weights: Mapping[str, float], divided_by: float) -> str:
    parts = [f"risk (mean over {risk})" if risk in ("domains", "samples") else f"risk ({risk})"]
    parts += [f"{l2:g} · Σ‖w‖²"] if l2 else []
    parts += [name if weight == 1 else f"{weight:g} · {name}" for name, weight in weights.items()]
    whole = " + ".join(parts)
    return f"loss at step {step} = " + (whole if divided_by == 1 else f"({whole}) / {divided_by:g}")


def explain_objective(experiment: Experiment, step: int = 0, data_dir: Path | None = None) -> LossExplanation:
    """Return weight, readings, graph and state of each term of the loss at a step, on the experiment's first batch.

    Raises:
        InputError: The data are missing.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> print(explain_objective(colored_digits(), step=120))
        loss at step 120 = (risk (mean over domains) + 0.00110795 · Σ‖w‖² + 91257.2 · fishr) / 91257.2
        <BLANKLINE>
        term    weight at step 120    reads                    graph kept    numbers remembered
        ------  --------------------  -----------------------  ------------  --------------------
        fishr   91257.2               factors, domains, sizes  yes           none
    """
    domains = experiment.data(experiment.seed, data_dir)
    model = build_model(experiment, domains)
    # Refuses factors of layers that the model lacks.
    by_layer(experiment.lr_factors or (), [name for name, p in model.parameters().items() if p.requires_grad])
    batch = experiment.batches.draw(domains.training, torch.Generator().manual_seed(experiment.seed), ALONE)
    if experiment.transform is not None:
        batch = experiment.transform(batch, named_generator(step, "transform"), model.outputs)
    objective = experiment.objective
    route, layers = experiment.route or "auto", experiment.layers
    seen = observe(model.featurizer, model.head, batch, experiment.loss, route, ALONE, layers=layers, seed=step)
    penalty = explain_penalty(objective.penalty, step, seen)
    return LossExplanation(
        risk=_risk_name(objective),
        l2=objective.l2,
        divided_by=objective.divisor(term.weight for term in penalty.terms),
        fresh_optimizer=StepOptimizer(experiment, step).fresh,
        penalty=penalty,
        learning_rates=experiment.learning_rates(step),
        parts=_remembered(experiment, model, len(domains.training)),
    )
