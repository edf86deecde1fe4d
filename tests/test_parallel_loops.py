"""Loops of one's own on two processes, by DistributedDataParallel or fully_shard of the featurizer, against one."""

from typing import Any, Literal

import pytest
import torch
import torch.distributed.checkpoint as dcp
from ranks import on_ranks
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

import fishr
from fishr.errors import InputError

pytestmark = pytest.mark.slow
EXACT = {torch.float64: {"atol": 1e-12, "rtol": 1e-12}, torch.float32: {"atol": 1e-6, "rtol": 1e-6}}
SIZES, STEPS = (6, 10), 4
# Samples of each domain on rank 0; the other has the rest.
EVEN, UNEVEN, MISSING = (3, 5), (1, 8), (6, 4)

Wrapper = Literal["none", "parallel", "compiled", "sharded"]
Case = tuple[Wrapper, torch.dtype, int, tuple[int, ...]]
CASES: tuple[Case, ...] = (
    ("parallel", torch.float64, 1, EVEN),
    ("parallel", torch.float32, 1, UNEVEN),
    ("parallel", torch.float64, 2, MISSING),
    ("compiled", torch.float64, 1, UNEVEN),
    ("sharded", torch.float64, 1, UNEVEN),
    ("sharded", torch.float32, 2, MISSING),
)
PENALTY = fishr.Total(
    fishr=fishr.Scaled(fishr.Fishr(ema=0.9, over_parameters="sum"), fishr.LinearSchedule(1.0, 10.0, steps=3)),
    irm=fishr.IRM(),
    rex=fishr.VREx(),
)


class Loop:
    """A model, an optimizer and a penalty with its state, on one rank."""

    def __init__(self, ranks: fishr.Ranks, wrapper: Wrapper, dtype: torch.dtype, layers: int = 1) -> None:
        torch.manual_seed(0)
        featurizer = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)).to(dtype)
        deep = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
        self.head = (nn.Linear(5, 3) if layers == 1 else deep).to(dtype)
        self.ranks, self.dtype, self.featurizer = ranks, dtype, wrapped(featurizer, wrapper, ranks)
        self.optimizer = torch.optim.SGD([*self.featurizer.parameters(), *self.head.parameters()], lr=0.1)
        self.problem = fishr.Problem.of(self.head, domains=2)
        self.state = PENALTY.init(self.problem)

    def step(self, step: int, split: tuple[int, ...]) -> Tensor:
        """Take a step as docs/own-loops.md has it, and return the loss and the penalty."""
        seen = fishr.observe(
            self.featurizer, self.head, batch_of(step, split, self.ranks, self.dtype), ranks=self.ranks
        )
        value, self.state = PENALTY(seen, self.state, step)
        loss = seen.domain_losses.mean() + value
        self.optimizer.zero_grad()
        loss.backward()
        fishr.average_gradients(self.head, self.ranks)
        self.optimizer.step()
        return torch.stack([loss.detach(), value.detach()])

    def weights(self) -> list[Tensor]:
        """Return whole parameters, and the moving average."""
        parameters: list[Any] = [*self.featurizer.parameters(), *self.head.parameters()]
        whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in parameters]
        return [*(p.detach().clone() for p in whole), self.state["fishr"].value]


def wrapped(featurizer: nn.Module, wrapper: Wrapper, ranks: fishr.Ranks) -> nn.Module:
    match wrapper:
        case "none":
            return featurizer
        case "parallel":
            return DistributedDataParallel(featurizer)
        case "compiled":
            return DistributedDataParallel(torch.compile(featurizer, backend="aot_eager"))  # pyright: ignore
        case "sharded":
            mesh = init_device_mesh("cpu", (ranks.count,))
            for part in featurizer:  # pyright: ignore[reportGeneralTypeIssues]
                if isinstance(part, nn.Linear):
                    fully_shard(part, mesh=mesh)
            return fully_shard(featurizer, mesh=mesh)


def batch_of(step: int, split: tuple[int, ...], ranks: fishr.Ranks, dtype: torch.dtype) -> fishr.DomainBatch:
    """Return this rank's samples of a batch that is the same however it is split."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(16, 6, dtype=torch.float64, generator=generator).to(dtype)
    labels = torch.randint(3, (16,), generator=generator)
    own = [
        slice(0, n) if ranks.alone else (slice(0, a), slice(a, n))[ranks.number]
        for n, a in zip(SIZES, split, strict=True)
    ]
    rows = [(x[part], y[part]) for x, y, part in zip(inputs.split(SIZES), labels.split(SIZES), own, strict=True)]
    return fishr.DomainBatch(
        torch.cat([x for x, _ in rows]), torch.cat([y for _, y in rows]), [len(x) for x, _ in rows]
    )


def trained(
    ranks: fishr.Ranks, wrapper: Wrapper, dtype: torch.dtype, layers: int, split: tuple[int, ...]
) -> list[Tensor]:
    loop = Loop(ranks, wrapper, dtype, layers)
    return [*(loop.step(step, split) for step in range(STEPS)), *loop.weights()]


def everything(ranks: fishr.Ranks, folder: str) -> tuple[list[list[Tensor]], list[list[Tensor]], list[str]]:
    return [trained(ranks, *case) for case in CASES], resumed(ranks, folder), refused(ranks)


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, str]:
    """Return what each rank found, and the folder of a checkpoint; once, since processes take long to start."""
    folder = str(tmp_path_factory.mktemp("sharded") / "checkpoint")
    first, second = on_ranks(2, everything, folder, seconds=180)
    return first, second, folder


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: "-".join(map(str, CASES[index])))
def test_two_processes_train_as_one(index: int, on_two: tuple[Any, Any, str]) -> None:
    _, dtype, layers, split = CASES[index]
    first, second = on_two[0][0][index], on_two[1][0][index]
    assert_close(first, trained(fishr.Ranks(), "none", dtype, layers, split), **EXACT[dtype])
    # Identical bits, so that the ranks never drift apart.
    assert all(map(torch.equal, first, second))


def resumed(ranks: fishr.Ranks, folder: str) -> list[list[Tensor]]:
    """Return losses and weights of a run that goes on, and of one that goes on from its checkpoint."""
    loop, again = (Loop(ranks, "sharded", torch.float64) for _ in range(2))
    loop.step(0, UNEVEN)
    save(loop, folder)
    load(again, folder)
    return [[*(each.step(step, UNEVEN) for step in (1, 2)), *each.weights()] for each in (loop, again)]


def save(loop: Loop, folder: str) -> None:
    model = {"featurizer": get_model_state_dict(loop.featurizer), "head": loop.head.state_dict()}
    dcp.save({**model, "penalty": fishr.state_dict(loop.state)}, checkpoint_id=folder)


def load(loop: Loop, folder: str) -> None:
    model = {"featurizer": get_model_state_dict(loop.featurizer), "head": loop.head.state_dict()}
    saved = {**model, "penalty": fishr.state_dict(PENALTY.init(loop.problem))}
    dcp.load(saved, checkpoint_id=folder)
    set_model_state_dict(loop.featurizer, saved["featurizer"])
    loop.head.load_state_dict(saved["head"])
    loop.state = fishr.load_state(PENALTY, loop.problem, saved["penalty"])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")
def test_a_sharded_checkpoint_resumes_to_the_bit_and_loads_in_one_process(on_two: tuple[Any, Any, str]) -> None:
    (_, (on, again), _), _, folder = on_two
    assert all(map(torch.equal, on, again))
    alone, expected = (Loop(fishr.Ranks(), "none", torch.float64) for _ in range(2))
    load(alone, folder)
    expected.step(0, UNEVEN)
    assert_close(alone.weights(), expected.weights(), **EXACT[torch.float64])


def refused(ranks: fishr.Ranks) -> list[str]:
    """The errors of a sharded head, and of the layers of a sharded featurizer."""
    loop = Loop(ranks, "none", torch.float32)
    head = wrapped(nn.Sequential(nn.Linear(5, 3)), "sharded", ranks)
    network = wrapped(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5).eval()), "sharded", ranks)
    batch, messages = batch_of(0, EVEN, ranks, torch.float32), list[str]()
    for featurizer, module, layers in (
        (loop.featurizer, head, ("head",)),
        (network, loop.head, ("featurizer", "head")),
    ):
        try:
            _ = fishr.observe(featurizer, module, batch, ranks=ranks, layers=layers).moments
        except InputError as error:
            messages.append(str(error))
    return messages


def test_moments_of_sharded_parameters_are_refused(on_two: tuple[Any, Any, str]) -> None:
    for _, _, (of_head, of_network) in on_two[:2]:
        assert "is a DTensor, sharded over ranks" in of_head
        assert "fully_shard to the featurizer alone" in of_head
        assert "which copy.deepcopy cannot copy" in of_network
