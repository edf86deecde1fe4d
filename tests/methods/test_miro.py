"""MIRO: a loop with torch.optim, two ranks, a resumed run, and its model without the copy of the first weights."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from cut_runs import resumed
from ranks import on_ranks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus
from torch.testing import assert_close

from fishr.configuration import dumps
from fishr.data import Minibatch
from fishr.errors import InputError
from fishr.inference import export_model, load_model
from fishr.losses import CrossEntropy
from fishr.methods import METHODS, MIRO, Anchored
from fishr.methods.miro import AnchoredNetwork, outputs_of
from fishr.models import MLP, ResNet
from fishr.observation import observe
from fishr.penalties import ERM, Scaled, Total
from fishr.protocols import colored_digits
from fishr.ranks import ALONE, Ranks, mean_over_ranks
from fishr.training import Adam, Experiment, Objective, advance, run
from fishr.training.model import build_modules
from fishr.training.state import first_state
from fishr.types import DomainBatch

FLOAT64 = torch.float64
EXACT = {"atol": 1e-11, "rtol": 1e-11}


@attrs.frozen
class Images:
    """Convolution, batch normalization, ReLU in place, and the mean of each channel."""

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        layer = nn.Conv2d(shape[0], 3, 2, bias=False)
        nn.init.uniform_(layer.weight, -1, 1, generator=generator)
        return nn.Sequential(layer, nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def features(self, shape: tuple[int, ...]) -> int:
        return 3


def experiment(featurizer: Any, **changes: Any) -> Experiment:
    parts: dict[str, Any] = {
        "featurizer": featurizer,
        "loss": CrossEntropy(),
        "objective": Objective(risk=ERM("samples"), penalty=Total(miro=Scaled(MIRO(), 0.3))),
        "optimizer": Adam(lr=0.01),
        "lr_factors": {"featurizer.variances": 10.0},
        "batches": Minibatch(8),
        "steps": 4,
        "checkpoint_every": 2,
    }
    return attrs.evolve(colored_digits("erm"), **parts | changes)


def batch_of(step: int) -> DomainBatch:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(7, 2, 4, 4, generator=generator, dtype=FLOAT64)
    return DomainBatch(inputs, torch.randint(2, (7,), generator=generator), (3, 4))


@pytest.mark.parametrize("layers", [(), ("0", "1")], ids=["features", "layers"])
def test_miro_is_its_loop(layers: tuple[str, ...]) -> None:
    made = experiment(Anchored(Images(), layers))
    model = build_modules(made, (2, 4, 4), 2, torch.device("cpu"))
    model.featurizer.double()
    model.head.double()
    state = first_state(made, model, 2)
    anchor: Any = deepcopy(model.featurizer.network)
    network, head = deepcopy(anchor), deepcopy(model.head)
    anchor.eval()
    scales = [nn.Parameter(p.detach().clone()) for p in model.featurizer.variances]  # type: ignore[union-attr]
    assert [len(scale) for scale in scales] == [3] * (len(layers) + 1)
    for scale in scales:
        assert_close(softplus(scale) + 1e-5, torch.full((3,), 0.1, dtype=FLOAT64), atol=1e-7, rtol=0)
    groups = [{"params": [*network.parameters(), *head.parameters()]}, {"params": scales, "lr": 0.1}]
    optimizer = torch.optim.Adam(groups, 0.01)

    def passed(module: Any, inputs: Tensor) -> list[Tensor]:
        found, rows = list[Tensor](), inputs
        for index, layer in enumerate(module):
            rows = layer(rows.clone())
            found += [rows] if str(index) in layers else []
        return [*found, rows]

    for step in range(3):
        batch = batch_of(step)
        state, record = advance(model, made, state, batch)
        now, before = passed(network, batch.inputs), passed(anchor, batch.inputs)
        value = torch.zeros((), dtype=FLOAT64)
        for output, target, scale in zip(now, before, scales, strict=True):
            for channel in range(3):
                variance = softplus(scale[channel]) + 1e-5
                gaps = (output[:, channel] - target[:, channel].detach()).square()
                value = value + (gaps / variance + variance.log()).mean() / 3 / 2
        assert record.terms["miro"].value == pytest.approx(0.3 * value.item(), rel=1e-10)
        optimizer.zero_grad()
        (cross_entropy(head(now[-1]), batch.labels) + 0.3 * value).backward()
        optimizer.step()
    expected = {f"featurizer.network.{name}": p for name, p in network.state_dict().items()}
    expected |= {f"featurizer.anchor.{name}": p for name, p in anchor.state_dict().items()}
    expected |= {f"featurizer.variances.{index}": scale.detach() for index, scale in enumerate(scales)}
    expected |= {f"head.{name}": p for name, p in head.state_dict().items()}
    found = state.parameters | state.buffers
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, **EXACT)


def on_both(ranks: Ranks) -> list[Tensor]:
    module = Anchored(MLP((4,)), ("1",))((3,), torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        module.network[1].weight += 0.5  # type: ignore[index, operator, union-attr]
    head, draws = nn.Linear(4, 2).double(), torch.Generator().manual_seed(1)
    inputs = torch.randn(7, 3, dtype=FLOAT64, generator=draws)
    rows = slice(None) if ranks.alone else [slice(0, 3), slice(3, None)][ranks.number]
    domains = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    batch = DomainBatch.of(inputs[rows], torch.zeros(7, dtype=torch.long)[rows], domains[rows], number=2)
    value, _ = MIRO()(observe(module, head, batch, ranks=ranks), (), 0)
    trained = [p for p in module.parameters() if p.requires_grad]
    gradients = mean_over_ranks(torch.autograd.grad(value, trained), ranks)
    return [value.detach(), *(g for g in gradients if g is not None)]


@pytest.mark.slow
def test_two_ranks_are_one() -> None:
    expected = on_both(ALONE)
    assert len(expected) == 5
    for found in on_ranks(2, on_both):
        assert_close(found, expected, **EXACT)


def test_a_run_resumes_to_the_same_bits_and_its_model_is_the_network_alone(tmp_path: Path, same: Any) -> None:
    made = experiment(Anchored(MLP((4,)), ("1",)))
    *_, whole = events = list(run(made, tmp_path / "whole", experiment_text=dumps(made)))
    last = resumed(made, tmp_path / "cut", dumps(made))
    assert same(last.state, whole.state)  # type: ignore[union-attr]
    model, inputs = load_model(tmp_path / "whole"), events[0].domains.training[0].inputs[:5]  # type: ignore[union-attr]
    assert [name for name, _ in model.named_parameters()] == [
        *("featurizer.1.weight", "featurizer.1.bias", "head.weight", "head.bias")
    ]
    assert model.experiment.featurizer == MLP((4,))
    parameters = whole.state.parameters  # type: ignore[union-attr]
    assert torch.equal(model.featurizer[1].weight, parameters["featurizer.network.1.weight"])  # type: ignore[index]
    assert not torch.equal(parameters["featurizer.network.1.weight"], parameters["featurizer.anchor.1.weight"])
    export_model(model, tmp_path / "whole", tmp_path / "model.pt2", "export")
    assert_close(torch.export.load(tmp_path / "model.pt2").module()(inputs), model(inputs))


def test_the_copy_stays_in_eval_mode() -> None:
    module = Anchored(Images())((2, 4, 4), torch.Generator())
    assert isinstance(module, AnchoredNetwork)
    assert not any(part.training for part in module.train().anchor.modules())
    assert all(part.training for part in module.network.modules())
    outputs_of(module.network, ("0",), torch.zeros(2, 2, 4, 4))
    assert not module.network[0]._forward_hooks  # type: ignore[index]


def test_the_method_compares_the_blocks_of_a_resnet() -> None:
    method = METHODS["MIRO"]
    wrapped = method.featurizer(ResNet(18, "random"), {})
    assert wrapped == Anchored(ResNet(18, "random"), ("layer1", "layer2", "layer3", "layer4"))
    module = wrapped((3, 32, 32), torch.Generator().manual_seed(0))
    assert [len(p) for p in module.variances] == [64, 128, 256, 512, 512]  # type: ignore[arg-type, union-attr]
    assert method.featurizer(MLP(), {}) == Anchored(MLP())


@pytest.mark.parametrize(("made", "message"), [
    (lambda: Anchored(MLP(), variance=1e-5), "variance: got 1e-05"),
    (lambda: Anchored(MLP(), layers="layer1"), "layers: got 'layer1'"),  # type: ignore[arg-type]
    (lambda: Anchored(MLP((4,)), ("layer1",))((3,), torch.Generator()), "layers: got 'layer1', expected names below"),
    (lambda: MIRO()(observe(nn.Identity(), nn.Linear(2, 2), DomainBatch(torch.zeros(2, 2), torch.tensor([0, 1]), (2,))),
                    (), 0), "MIRO: got a Identity as the featurizer, .*kind = \"Anchored\""),
])  # fmt: skip
def test_what_does_not_fit_is_refused(made: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made()
