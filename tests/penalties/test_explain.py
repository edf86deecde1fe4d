"""What is said of a penalty is what it does."""

import pytest
import torch
from cases import Featurizer
from torch import nn

from fishr.observation import Observation, observe
from fishr.penalties import ERM, IRM, Fishr, Penalty, Scaled, Stateless, StepSchedule, Total, VREx, explain
from fishr.types import DomainBatch, Problem

SEEN = ("features", "logits", "losses", "domain_losses", "deltas", "moments", "gram")


def see(head: nn.Module) -> Observation:
    batch = DomainBatch(torch.randn(7, 3).double(), torch.randint(2, (7,)), (3, 4))
    return observe(Featurizer((3,)), head.double(), batch)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


LINEAR = 3 * 2 + 2
MLP = 3 * 4 + 4 + 4 * 2 + 2
# Penalty, head, what it reads, and how many numbers it remembers.
TABLE = [
    (ERM(), nn.Linear(3, 2), {"domain_losses"}, 0),
    (ERM("samples"), nn.Linear(3, 2), {"losses"}, 0),
    (VREx(), nn.Linear(3, 2), {"domain_losses"}, 0),
    (VREx("pairwise"), nn.Linear(3, 2), {"domain_losses", "domains"}, 0),
    (IRM(), nn.Linear(3, 2), {"deltas", "logits", "sizes"}, 0),
    (Fishr(), nn.Linear(3, 2), {"factors", "domains", "sizes"}, 0),
    (Fishr(ema=0.9), nn.Linear(3, 2), {"factors", "domains", "sizes"}, 2 * LINEAR + 1),
    (Fishr(), mlp(), {"factors", "domains", "sizes"}, 0),
    (Fishr(ema=0.9), mlp(), {"factors", "domains", "sizes"}, 2 * MLP + 1),
    (Fishr(), nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), {"moments"}, 0),
    (Fishr("covariance"), nn.Linear(3, 2), {"gram", "sizes", "domains"}, 0),
    (Stateless(lambda seen: seen.logits.detach().sum()), nn.Linear(3, 2), {"logits"}, 0),
]


@pytest.mark.parametrize(("penalty", "head", "reads", "state"), TABLE, ids=lambda x: type(x).__name__)
def test_every_penalty_is_explained_truly(penalty: Penalty, head: nn.Module, reads: set[str], state: int) -> None:
    seen = see(head)
    (term,) = explain(penalty, 0, seen).terms
    assert set(term.reads) == reads
    assert (term.name, term.weight, term.state) == (type(penalty).__name__, 1.0, state)
    value, _ = penalty(seen, penalty.init(Problem.of(head, 2)), 0)
    assert term.graph is value.requires_grad


def test_what_it_reads_is_all_that_it_reads() -> None:
    """Whatever else is asked for fails, and the value is still the same."""
    for penalty, head, reads, _ in TABLE:
        seen = see(head)
        allowed = {
            *reads,
            "batch",
            "head",
            "loss",
            "route",
            "closed_form",
            "ranks",
            "layers",
            "layout",
            "present",
            "weights",
        }

        class Only:
            def __getattr__(self, name: str, seen: Observation = seen, allowed: set[str] = allowed) -> object:
                if name == "own":
                    return self
                assert name.removeprefix("own_") in allowed, name
                return getattr(seen, name)

        state = penalty.init(Problem.of(head, 2))
        assert penalty(Only(), state, 0)[0] == penalty(seen, state, 0)[0]  # type: ignore[arg-type]


def test_weights_and_graphs_change_with_the_step() -> None:
    warm = StepSchedule(10, 0.0, 5.0)
    total = Total(
        risk=ERM(), rex=Scaled(VREx(), warm), fishr=Scaled(Fishr(ema=0.9), warm), twice=Scaled(Scaled(IRM(), 2.0), 3.0)
    )
    before, after = (explain(total, step, see(nn.Linear(3, 2))) for step in (9, 10))
    assert [t.weight for t in before.terms] == [1.0, 0.0, 0.0, 6.0]
    assert [t.graph for t in before.terms] == [True, False, False, True]
    assert before.terms[1].reads == ()
    assert set(before.terms[2].reads) == {"factors", "domains", "sizes"}
    assert [t.weight for t in after.terms] == [1.0, 5.0, 5.0, 6.0]
    assert all(t.graph for t in after.terms)


def test_explaining_changes_nothing_and_prints_a_table() -> None:
    head = nn.Linear(3, 2)
    seen = see(head)
    before = {name: p.clone() for name, p in head.named_parameters()}
    text = str(explain(Total(fishr=Scaled(Fishr(ema=0.9), 91257.18)), 3, seen))
    assert all(p.grad is None and p.eq(before[name]).all() for name, p in head.named_parameters())
    header, _, row = text.splitlines()
    assert "weight at step 3" in header
    assert row.split()[:2] == ["fishr", "91257.2"]
    assert row.split()[-2:] == ["yes", str(2 * LINEAR + 1)]
    assert str(explain(VREx())).splitlines()[2].split()[-1] == "none"
