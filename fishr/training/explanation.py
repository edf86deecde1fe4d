"""What an experiment's loss is made of at a step."""

from pathlib import Path

import torch
from attrs import frozen

from fishr.observation import observe
from fishr.penalties import Explanation
from fishr.penalties import explain as explain_penalty
from fishr.ranks import ALONE
from fishr.training.experiment import Experiment
from fishr.training.state import build_model


@frozen
class LossExplanation:
    """The parts of a loss at a step; printed, a few lines and a table.

    Args:
        risk: how the training error is averaged: over domains or over samples.
        l2: factor of the squared norm of all parameters.
        divided_by: what the whole loss is divided by at this step.
        fresh_optimizer: whether the optimizer's state is made anew before this step's update.
        penalty: its terms.
    """

    risk: str
    l2: float
    divided_by: float
    fresh_optimizer: bool
    penalty: Explanation

    def __str__(self) -> str:
        parts = [f"risk (mean over {self.risk})"]
        parts += [f"{self.l2:g} · Σ‖w‖²"] if self.l2 else []
        parts += [term.name for term in self.penalty.terms]
        whole = " + ".join(parts)
        loss = whole if self.divided_by == 1 else f"({whole}) / {self.divided_by:g}"
        fresh = "\nthe optimizer's state is made anew before this step's update" if self.fresh_optimizer else ""
        terms = f"\n\n{self.penalty}" if self.penalty.terms else ""
        return f"loss at step {self.penalty.step} = {loss}{fresh}{terms}"


def explain_objective(experiment: Experiment, step: int = 0, data_dir: Path | None = None) -> LossExplanation:
    """Weights, readings, graphs and memory of a loss's terms at a step, found on the experiment's first batch.

    Args:
        experiment: the run.
        step: at which step.
        data_dir: where data files lie, for data that has files.

    Returns:
        An explanation; ``print`` it.

    Raises:
        InputError: missing data.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> print(explain_objective(colored_digits(), step=60))
        loss at step 60 = (risk (mean over domains) + 0.00110795 · Σ‖w‖² + fishr) / 91257.2
        <BLANKLINE>
        term    weight at step 60    reads                             graph kept    numbers remembered
        ------  -------------------  --------------------------------  ------------  --------------------
        fishr   91257.2              deltas, features, domains, sizes  yes           none
    """
    domains = experiment.data(experiment.seed, data_dir)
    model = build_model(experiment, domains)
    batch = experiment.batches.draw(domains.training, torch.Generator().manual_seed(experiment.seed))
    objective = experiment.objective
    seen = observe(model.featurizer, model.head, batch, experiment.loss, ranks=ALONE, layers=experiment.layers)
    penalty = explain_penalty(objective.penalty, step, seen)
    weights = [1.0, *(term.weight for term in penalty.terms)]
    return LossExplanation(
        risk=objective.risk.over,
        l2=objective.l2,
        divided_by=max(weights) if objective.rescale else 1.0,
        fresh_optimizer=step == objective.fresh_optimizer_at,
        penalty=penalty,
    )
