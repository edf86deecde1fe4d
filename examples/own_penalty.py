"""Your own penalty: a frozen class if it has settings or memory, a plain function if it has neither.

Run: python own_penalty.py
At the command line, from this folder: fishr train own_penalty.toml --plugin own_penalty
The file names it as ``kind = "own_penalty:MeanGradientGap"``; --plugin allows to run its code.
"""

from pathlib import Path
from typing import Any

import torch
from attrs import frozen

import fishr
from fishr.configuration import load
from fishr.training import Finished, Stepped


@frozen
class MeanGradientGap:
    """Distance of the domains' mean gradients, averaged over steps, to their mean over domains."""

    decay: float = 0.9

    def init(self, problem: fishr.Problem) -> Any:
        """Return the first state."""
        return fishr.MovingAverage(self.decay).init(problem)

    def __call__(self, seen: fishr.Observation, state: Any, step: int) -> tuple[torch.Tensor, Any]:
        """Return the value and the next state."""
        average, state = fishr.MovingAverage(self.decay)(seen.moments.mean, state)
        return fishr.distance_to_mean(average), state


def disagreement(seen: fishr.Observation) -> torch.Tensor:
    """Return one minus the mean cosine between the domains' mean gradients."""
    unit = torch.nn.functional.normalize(seen.moments.mean, dim=-1)
    return 1 - (unit @ unit.T).mean()


def main() -> None:
    """Use it alone, in a sum, and in an experiment from a file."""
    head = torch.nn.Linear(4, 2)
    batch = fishr.DomainBatch(torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1]), sizes=(2, 4))
    penalty = MeanGradientGap()
    state = penalty.init(fishr.Problem.of(head, domains=2))
    value, state = penalty(fishr.observe(torch.nn.Identity(), head, batch), state, step=0)
    print(f"alone: value {value.item():.4f} after {state.updates} update")

    both = fishr.Total(gap=fishr.Scaled(penalty, 10.0), mine=fishr.Scaled(fishr.Stateless(disagreement), 0.1))
    print(f"\n{fishr.explain(both)}\n")

    experiment = load(Path(__file__).with_suffix(".toml"), fishr.Experiment, plugins=["own_penalty"])
    for event in fishr.train(experiment):
        if isinstance(event, Stepped) and event.state.step in (60, experiment.steps):
            gap = event.record.terms["gap"]
            print(f"step {event.record.step}: gap {gap.value / gap.weight:.3e} at weight {gap.weight:g}")
        if isinstance(event, Finished):
            print(", ".join(f"{score.name} {score.accuracy:.3f}" for score in event.scores))


if __name__ == "__main__":
    main()
