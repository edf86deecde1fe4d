"""What needs a GPU: the same numbers as on a CPU, and how far 16 bits move the penalty."""

import attrs
import pytest
import torch
from torch import nn

from fishr.data.batches import Minibatch
from fishr.data.digits import ColoredDigits
from fishr.losses import CrossEntropy
from fishr.models.featurizers import MNISTCNN
from fishr.observation import observe
from fishr.penalties import Fishr
from fishr.protocols import colored_digits
from fishr.training import Compute, Stepped, train
from fishr.types import DomainBatch, Problem

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def _experiment(**compute):
    return attrs.evolve(
        colored_digits(),
        data=ColoredDigits(training_images=200),
        featurizer=MNISTCNN(),
        batches=Minibatch(size=32),
        steps=3,
        compute=Compute(**compute),
    )


def _losses(experiment, device):
    return [event.record.loss for event in train(experiment, device=device) if isinstance(event, Stepped)]


def test_steps_are_those_of_a_cpu() -> None:
    assert _losses(_experiment(), "cuda") == pytest.approx(_losses(_experiment(), "cpu"), rel=1e-3)


@pytest.mark.parametrize(
    "compute",
    [
        {"precision": "tf32"},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"channels_last": True},
        {"compile": True},
        {"micro_batches": 3},
    ],
    ids=str,
)
# torch 2.11 imports its inductor with a warning about itself.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_every_way_to_compute_trains_the_same_but_for_rounding(compute) -> None:
    assert _losses(_experiment(**compute), "cuda") == pytest.approx(_losses(_experiment(), "cuda"), rel=0.05)


def test_the_fused_optimizer_too() -> None:
    usual = _experiment()
    fused = attrs.evolve(usual, optimizer=attrs.evolve(usual.optimizer, fused=True))
    assert _losses(fused, "cuda") == pytest.approx(_losses(usual, "cuda"), rel=1e-3)


def _penalty(precision, device):
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(96, 3, 32, 32, generator=generator), torch.randint(7, (96,), generator=generator)
    torch.manual_seed(0)
    featurizer, head = MNISTCNN()((3, 32, 32), generator).to(device), nn.Linear(128, 7).to(device)
    compute, batch = Compute(precision=precision), DomainBatch(inputs.to(device), labels.to(device), (32, 32, 32))
    with compute.products(), compute.autocast(torch.device(device)):
        features = featurizer(batch.inputs)
    seen = observe(featurizer, head, batch, CrossEntropy(), features=features)
    penalty = Fishr()
    return float(penalty(seen, penalty.init(Problem.of(head, 3)), 0)[0].detach())


def test_the_penalty_of_a_16_bit_featurizer_is_near_that_of_32_bits() -> None:
    exact = _penalty("fp32", "cuda")
    assert exact == pytest.approx(_penalty("fp32", "cpu"), rel=1e-4)
    for precision, error in (("tf32", 0.01), ("bf16", 0.05), ("fp16", 0.01)):
        assert _penalty(precision, "cuda") == pytest.approx(exact, rel=error)
