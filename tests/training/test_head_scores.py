"""Scores of several heads, against those of each alone."""

import pytest
import torch

from fishr.data.batches import Minibatch
from fishr.data.domains import Domain
from fishr.data.environments import Environments, HeldOut
from fishr.data.shared_rows import in_one_table
from fishr.losses import CrossEntropy
from fishr.models import MLP, LinearHead, MLPHead
from fishr.training import Adam, Experiment, Objective
from fishr.training.evaluation import evaluate
from fishr.training.head_scores import score_heads
from fishr.training.model import build_model
from fishr.training.state import first_state, with_weights

GENERATOR = torch.Generator().manual_seed(0)
DOMAINS = tuple(
    Domain(name, torch.randn(101, 1280, generator=GENERATOR), torch.arange(101) % 7, name) for name in "ACPS"
)
PLAIN = Environments(DOMAINS, 7)
SHARED = in_one_table(PLAIN, torch.device("cpu"))


def scored(head, count, environments, wide=True):
    """Weights and domains of so many heads, with what their scores are together."""
    experiment = Experiment(
        name="heads",
        data=HeldOut(lambda seed, data_dir: environments, (0,), trial_seed=0),
        featurizer=MLP(widths=()),
        head=head,
        loss=CrossEntropy(),
        objective=Objective(),
        optimizer=Adam(lr=0.1),
        batches=Minibatch(8),
        steps=1,
    )
    domains = experiment.data(0, None)
    model = build_model(experiment, domains)
    state, generator = first_state(experiment, model, 3), torch.Generator().manual_seed(1)
    weights = [
        {name: torch.randn(weight.shape, generator=generator) for name, weight in state.parameters.items()}
        for _ in range(count)
    ]
    found = score_heads(model, experiment.loss, weights, [domains] * count, wide)
    return found, [evaluate(model, experiment, with_weights(state, own), domains) for own in weights]


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("head", [LinearHead(), MLPHead(widths=(8,))])
def test_scores_are_those_of_each_alone(head, wide):
    together, alone = scored(head, 10, SHARED, wide)
    for scores, expected in zip(together, alone, strict=True):
        for score, other in zip(scores, expected, strict=True):
            assert (score.name, score.split, score.samples) == (other.name, other.split, other.samples)
            assert (score.loss, score.accuracy) == pytest.approx((other.loss, other.accuracy), rel=1e-5)


def test_scores_do_not_depend_on_the_number_of_heads_to_the_bit():
    many, _ = scored(LinearHead(), 18, SHARED)
    for count in (1, 3, 8, 11):
        assert scored(LinearHead(), count, SHARED)[0] == many[:count]
