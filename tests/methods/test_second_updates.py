"""SagNet and Transfer, which update the featurizer twice a step: loops with torch.optim, ranks, resumed runs."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from cut_runs import resumed
from ranks import on_ranks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from fishr.configuration import dumps
from fishr.data import Minibatch
from fishr.errors import InputError
from fishr.inference import load_model
from fishr.losses import CrossEntropy
from fishr.methods import SagNet, StyleRandomized, Transfer
from fishr.methods.sagnet import draws_of
from fishr.models import MLP, LinearHead, MLPHead
from fishr.observation import observe
from fishr.penalties import ERM, Scaled, Total, VREx
from fishr.protocols import colored_digits
from fishr.ranks import ALONE, Ranks
from fishr.training import SGD, Adam, Experiment, Objective, advance, run, train
from fishr.training.model import build_modules
from fishr.training.state import first_state
from fishr.types import DomainBatch

FLOAT64 = torch.float64
EXACT = {"atol": 1e-11, "rtol": 1e-11}


def experiment(descent: Any, **changes: Any) -> Experiment:
    parts: dict[str, Any] = {
        "featurizer": MLP((5,)),
        "head": MLPHead((4,)),
        "loss": CrossEntropy(),
        "objective": Objective(risk=ERM("samples")),
        "optimizer": Adam(lr=0.02, weight_decay=0.1),
        "batches": Minibatch(8),
        "steps": 4,
        "checkpoint_every": 2,
        "descent": descent,
    }
    return attrs.evolve(colored_digits("erm"), **parts | changes)


def batch_of(step: int) -> DomainBatch:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(12, 4, generator=generator, dtype=FLOAT64)
    return DomainBatch(inputs, torch.randint(3, (12,), generator=generator), (3, 4, 5))


class Both:
    """The same first weights for ours and for a loop by hand."""

    def __init__(self, made: Experiment) -> None:
        self.made, self.model = made, build_modules(made, (4,), 3, torch.device("cpu"))
        self.model.featurizer.double()
        self.model.head.double()
        self.state = first_state(made, self.model, 3)
        self.featurizer, self.head = deepcopy(self.model.featurizer), deepcopy(self.model.head)

    def like_the_head(self, parameters: dict[str, Tensor]) -> nn.Module:
        made = deepcopy(self.head)
        made.load_state_dict(parameters)
        return made

    def step(self, batch: DomainBatch) -> None:
        self.state, _ = advance(self.model, self.made, self.state, batch)

    def check(self) -> None:
        hand = nn.ModuleDict({"featurizer": self.featurizer, "head": self.head})
        for name, parameter in hand.named_parameters():
            assert_close(self.state.parameters[name], parameter.detach(), **EXACT)


def fixed_draws(seen: Any, name: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(name))
    return torch.rand(12, 1, generator=generator, dtype=FLOAT64), torch.randperm(12, generator=generator)


def test_sagnet_is_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fishr.methods.sagnet.draws_of", fixed_draws)
    made = experiment(SagNet(0.7, lr=0.03, weight_decay=0.2), objective=Objective(risk=StyleRandomized()))
    both = Both(made)
    style = both.like_the_head(both.state.descent["style"].parameters)
    optimizers = [torch.optim.Adam(part.parameters(), 0.02, weight_decay=0.1) for part in (both.featurizer, both.head)]
    of_style = torch.optim.Adam(style.parameters(), 0.03, weight_decay=0.2)

    def mixed(name: str) -> Tensor:
        """Features of a pass of its own."""
        shares, order = fixed_draws(None, name)
        rows = list[Tensor]()
        features = both.featurizer(batch.inputs)
        for i, j in enumerate(order.tolist()):
            mean, variance = features[i].mean(), features[i].var()
            if name == "content":
                content = (features[i] - mean) / (variance + 1e-5).sqrt()
                mean = shares[i] * mean + (1 - shares[i]) * features[j].mean()
                variance = shares[i] * variance + (1 - shares[i]) * features[j].var()
            else:
                content = ((features[j] - features[j].mean()) / (features[j].var() + 1e-5).sqrt()).detach()
            rows.append(content * (variance + 1e-5).sqrt() + mean)
        return torch.stack(rows)

    for step in range(3):
        batch = batch_of(step)
        both.step(batch)
        for optimizer in (*optimizers, of_style):
            optimizer.zero_grad()
        cross_entropy(both.head(mixed("content")), batch.labels).backward()
        for optimizer in optimizers:
            optimizer.step()
        cross_entropy(style(mixed("style")), batch.labels).backward()
        of_style.step()
        optimizers[0].zero_grad()
        (0.7 * -style(mixed("adversary")).log_softmax(1).mean(1).mean()).backward()
        optimizers[0].step()
        both.check()
        for name, parameter in style.named_parameters():
            assert_close(both.state.descent["style"].parameters[name], parameter.detach(), **EXACT)


@pytest.mark.parametrize(
    "descent",
    [
        Transfer(0.7, radius=0.05, ascents=3, lr=0.2),
        Transfer(0.7, radius=9.0, ascents=3, lr=0.2, gda=True, form="paper"),
        Transfer(0.7, radius=0.05, ascents=3, lr=0.2, gda=True),
        Transfer(0.7, ascents=0),
    ],
    ids=["projected", "free", "resting", "without ascents"],
)
def test_transfer_is_its_loop(descent: Transfer) -> None:
    both = Both(experiment(descent))
    rival = both.like_the_head(both.state.descent["adversary"].parameters)
    assert_close(dict(rival.named_parameters()), dict(both.head.named_parameters()), **EXACT)
    optimizers = [torch.optim.Adam(part.parameters(), 0.02, weight_decay=0.1) for part in (both.featurizer, both.head)]

    def gap() -> Tensor:
        losses = cross_entropy(rival(both.featurizer(batch.inputs)), batch.labels, reduction="none")
        risks = [part.mean() for part in losses.split([3, 4, 5])]
        return 0.7 * (max(risks) - min(risks))

    for step in range(3):
        batch = batch_of(step)
        both.step(batch)
        if not (descent.gda and descent.form == "domainbed"):
            for optimizer in optimizers:
                optimizer.zero_grad()
            cross_entropy(both.head(both.featurizer(batch.inputs)), batch.labels).backward()
            for optimizer in optimizers:
                optimizer.step()
            optimizers[0].zero_grad()
            gap().backward()
            optimizers[0].step()
        rival.load_state_dict(both.head.state_dict())
        for _ in range(descent.ascents):
            gradients = torch.autograd.grad(gap(), [*rival.parameters()])
            with torch.no_grad():
                for parameter, gradient in zip(rival.parameters(), gradients, strict=True):
                    parameter += 0.2 * gradient
                pairs = [*zip(rival.parameters(), both.head.parameters(), strict=True)]
                distance = sum((one - other).square().sum() for one, other in pairs).sqrt()
                if distance > descent.radius:
                    for one, other in pairs:
                        one.copy_(other + descent.radius / distance * (one - other))
        both.check()
        for name, parameter in rival.named_parameters():
            assert_close(both.state.descent["adversary"].parameters[name], parameter.detach(), **EXACT)
    if descent.ascents:
        assert not torch.equal(rival[0].weight, both.head[0].weight)  # type: ignore[index]


@attrs.frozen
class Normalized:
    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        return nn.Sequential(MLP((5,))(shape, generator), nn.BatchNorm1d(5))

    def features(self, shape: tuple[int, ...]) -> int:
        return 5


@pytest.mark.parametrize(("descent", "passes"), [(SagNet(), 2), (Transfer(), 3), (Transfer(gda=True), 2)])
def test_each_pass_moves_batch_normalization(descent: Any, passes: int) -> None:
    both = Both(experiment(descent, featurizer=Normalized()))
    both.step(batch_of(0))
    assert both.state.buffers["featurizer.1.num_batches_tracked"] == passes


def test_the_style_head_begins_as_the_head_in_random_order() -> None:
    head = {f"head.{key}": torch.randn(shape) for key, shape in {"0.weight": (4, 5), "0.bias": (4,)}.items()}
    owned = SagNet().init(head | {"featurizer.weight": torch.randn(3)})["style"]
    assert owned.parameters.keys() == {"0.weight", "0.bias"}
    for name, weight in owned.parameters.items():
        assert torch.equal(weight.flatten().sort().values, head[f"head.{name}"].flatten().sort().values)
        assert not torch.equal(weight, head[f"head.{name}"])


def test_draws_of_styles() -> None:
    batch = DomainBatch(torch.zeros(500, 2), torch.zeros(500, dtype=torch.long), (500,))
    seen = observe(nn.Identity(), nn.Linear(2, 2), batch, seed=1)
    shares, order = draws_of(seen, "style")
    assert torch.equal(order.sort().values, torch.arange(500))
    assert shares.shape == (500, 1)
    assert 0 <= shares.min() < 0.05
    assert 0.95 < shares.max() <= 1
    assert not torch.equal(order, draws_of(seen, "adversary")[1])
    assert not torch.equal(order, draws_of(attrs.evolve(seen, seed=2), "style")[1])


DESCENTS = {"sagnet": SagNet(0.5, lr=0.01), "transfer": Transfer(0.5, radius=0.1, ascents=2, lr=0.1)}
RISKS: dict[str, Any] = {"sagnet": StyleRandomized(), "transfer": ERM()}


@pytest.mark.parametrize("name", DESCENTS)
def test_a_run_resumes_to_the_same_bits(name: str, tmp_path: Path, same: Any) -> None:
    objective = Objective(risk=RISKS[name], penalty=Total(rex=Scaled(VREx(), 0.5)))
    made = experiment(DESCENTS[name], objective=objective)
    *_, whole = run(made, tmp_path / "whole", experiment_text=dumps(made))
    last = resumed(made, tmp_path / "cut", dumps(made))
    assert same(last.state, whole.state)  # type: ignore[union-attr]
    model = load_model(tmp_path / "whole")
    assert {key.partition(".")[0] for key, _ in model.named_parameters()} == {"featurizer", "head"}


def after(ranks: Ranks) -> list[Any]:
    found = list[Any]()
    for name, descent in DESCENTS.items():
        made = experiment(descent, optimizer=SGD(0.1), batches=Minibatch(9), objective=Objective(risk=RISKS[name]))
        *_, finished = train(made, ranks=ranks)
        (owned,) = finished.state.descent.values()  # type: ignore[union-attr]
        found.append(finished.state.parameters | {f"owned {k}": v for k, v in owned.parameters.items()})  # type: ignore[union-attr]
    return found


@pytest.mark.slow
def test_two_ranks_are_one() -> None:
    alone = after(ALONE)
    for ours in on_ranks(2, after):
        assert_close(ours, alone, atol=1e-5, rtol=1e-5)


@attrs.frozen
class Resting:
    """A head that does not learn."""

    def __call__(self, features: int, outputs: int, generator: torch.Generator) -> nn.Module:
        return LinearHead()(features, outputs, generator).requires_grad_(False)


@pytest.mark.parametrize(("made", "message"), [
    (lambda: SagNet(-1.0), "weight: got -1"),
    (lambda: SagNet(lr=0.0), "lr: got 0"),
    (lambda: Transfer(radius=-1.0), "radius: got -1"),
    (lambda: Transfer(ascents=-1), "ascents: got -1"),
    (lambda: list(train(experiment(SagNet(), head=Resting()))), "SagNet: got a head without trained weights"),
    (lambda: list(train(experiment(Transfer(), head=Resting()))), "Transfer: got a head without trained weights"),
    (lambda: list(train(experiment(None, featurizer=MLP((1,)), objective=Objective(risk=StyleRandomized())))),
     "StyleRandomized: got a single feature"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(made: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made()
