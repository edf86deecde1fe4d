"""ARM and MTL: features of a sample that depend on the others, in training, in runs, and where that is refused."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from cases import EXACT, FLOAT64
from cut_runs import resumed
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.analysis import open_subject
from fishr.configuration import dumps
from fishr.data import Minibatch
from fishr.data.domains import Domain, Domains
from fishr.errors import InputError
from fishr.inference import export_model, load_model
from fishr.losses import CrossEntropy
from fishr.methods import ARM, MTL, SumOfRisks
from fishr.models import MLP, FeatureDropout
from fishr.observation import observe
from fishr.penalties import Fishr, Total
from fishr.protocols import colored_digits
from fishr.ranks import Ranks
from fishr.training import SGD, Compute, Experiment, Frozen, Objective, run, train
from fishr.types import DomainBatch

SIZES = (2, 0, 3)


@attrs.frozen
class Pixels:
    """A layer of all pixels, in float64."""

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        return nn.Sequential(*MLP((4,))(shape, generator)).double()

    def features(self, shape: tuple[int, ...]) -> int:
        return 4


def built(featurizer: Any, shape: tuple[int, ...]) -> nn.Module:
    module = featurizer(shape, torch.Generator().manual_seed(0)).double()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # Other statistics than those of a batch, to tell the modes apart.
            layer.running_var.fill_(4.0)
    return module


def derivatives(value: Tensor, module: nn.Module) -> dict[str, Tensor | None]:
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(value, list(trained.values()), allow_unused=True)
    return dict(zip(trained, found, strict=True))


def arm_of(module: Any, images: Tensor, groups: list[range]) -> Tensor:
    maps = module.context(images)
    rows = list[Tensor]()
    for group in groups:
        context = sum(maps[i] for i in group) / len(group)
        rows += [torch.cat([images[i], context], 0) for i in group]
    return module.network(torch.stack(rows))


@pytest.mark.parametrize("form", ["paper", "domainbed"])
def test_the_context_of_an_image_is_the_mean_map_of_its_domain(form: Any) -> None:
    module = built(ARM(Pixels(), samples=2, form=form), (2, 3, 3))
    images = torch.randn(5, 2, 3, 3, dtype=FLOAT64, generator=torch.Generator().manual_seed(1))
    factors = torch.randn(5, 4, dtype=FLOAT64, generator=torch.Generator().manual_seed(2))
    found, expected = module(images, SIZES), arm_of(module, images, [range(2), range(2, 5)])
    assert_close(found, expected, **EXACT)
    ours, theirs = (derivatives((features * factors).sum(), module) for features in (found, expected))
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert_close(gradient, theirs[name], **EXACT)
    assert [name for name in ours if name.startswith("context")] == (
        [] if form == "domainbed" else [name for name, _ in module.named_parameters() if name.startswith("context")]
    )
    module.eval()
    groups = [range(2), range(2, 4), range(4, 5)]
    assert_close(module(images), arm_of(module, images, groups), **EXACT)


def test_the_embedding_of_a_domain_is_a_moving_average_with_the_newest_mean_in_it() -> None:
    module = built(MTL(Pixels(), ema=0.75, domains=3, form="paper"), (5,))
    draws = torch.Generator().manual_seed(1)
    means = [torch.zeros(4, dtype=FLOAT64) for _ in SIZES]
    for sizes in (SIZES, (1, 2, 2)):
        inputs = torch.randn(5, 5, dtype=FLOAT64, generator=draws)
        factors = torch.randn(5, 8, dtype=FLOAT64, generator=draws)
        found, rows, start = module(inputs, sizes), list[Tensor](), 0
        features = module.network(inputs)
        for k, size in enumerate(sizes):
            if size:
                mean = 0.75 * sum(features[start : start + size]) / size + 0.25 * means[k]
                rows += [torch.cat([features[i], mean]) for i in range(start, start + size)]
                means[k], start = mean.detach(), start + size
        assert_close(found, torch.stack(rows), **EXACT)
        ours, theirs = (derivatives((z * factors).sum(), module) for z in (found, torch.stack(rows)))
        for name, gradient in ours.items():
            assert_close(gradient, theirs[name], **EXACT)
    assert_close(module.means, torch.stack(means), **EXACT)
    module.eval()
    for given in ((), (SIZES,)):
        module(inputs, *given)
        assert_close(module.means, torch.stack(means), **EXACT)
    assert_close(module(inputs)[:, 4:], features.mean(0).expand(5, 4), **EXACT)


def test_noise_is_drawn_anew_in_training_and_once_in_evaluation() -> None:
    module = built(MTL(Pixels()), (5,))
    inputs = torch.randn(500, 5, dtype=FLOAT64, generator=torch.Generator().manual_seed(1))
    one, other = module(inputs, (500,)), module(inputs, (500,))
    assert torch.equal(one[:, :4], module.network(inputs))
    assert not torch.equal(one[:, 4:], other[:, 4:])
    assert abs(one[:, 4:].mean()) < 0.1
    assert abs(one[:, 4:].std() - 1) < 0.1
    module.eval()
    assert torch.equal(module(inputs), module(inputs))
    assert not torch.equal(module(inputs)[:, 4:], other[:, 4:])


def test_own_loops_pass_the_sizes() -> None:
    module = built(MTL(Pixels(), domains=2, form="paper"), (5,))
    inputs = torch.randn(5, 5, dtype=FLOAT64)
    head = nn.Linear(8, 2).double()
    seen = observe(module, head, DomainBatch(inputs, torch.tensor([0, 1, 1, 0, 1]), (2, 3)))
    assert_close(seen.features, built(MTL(Pixels(), domains=2, form="paper"), (5,))(inputs, (2, 3)), **EXACT)
    assert_close(SumOfRisks()(seen, (), 0)[0], seen.domain_losses[0] + seen.domain_losses[1], **EXACT)


@attrs.frozen
class Images:
    """Two training domains of 20 small images, and one more."""

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        draws = torch.Generator().manual_seed(seed)
        one, two, three = (
            Domain(name, torch.randn(20, 2, 3, 3, generator=draws), torch.randint(2, (20,), generator=draws))
            for name in ("one", "two", "three")
        )
        return Domains((one, two), (three,), classes=2)


def experiment(featurizer: Any, **changes: Any) -> Experiment:
    parts: dict[str, Any] = {
        "data": Images(),
        "featurizer": featurizer,
        "loss": CrossEntropy(),
        "objective": Objective(risk=SumOfRisks()),
        "optimizer": SGD(lr=0.01),
        "batches": Minibatch(6),
        "steps": 4,
        "checkpoint_every": 2,
    }
    return attrs.evolve(colored_digits("erm"), **parts | changes)


RUNS = {
    "ARM": ARM(MLP((4,)), samples=6),
    "ARM of the paper": ARM(MLP((4,)), samples=6, form="paper"),
    "MTL": MTL(MLP((4,))),
    "MTL of the paper": MTL(MLP((4,)), domains=2, form="paper"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_resumes_to_the_same_bits_and_gives_its_model(name: str, tmp_path: Path, same: Any) -> None:
    made = experiment(RUNS[name])
    text = dumps(made)
    *_, whole = events = list(run(made, tmp_path / "whole", experiment_text=text))
    last = resumed(made, tmp_path / "cut", text)
    assert same(last.state, whole.state)  # type: ignore[union-attr]
    assert last.scores == whole.scores  # type: ignore[union-attr]
    model = load_model(tmp_path / "whole", plugins=(__name__,))
    domain = events[0].domains.training[0]  # type: ignore[union-attr]
    logits = model(domain.inputs)
    assert len(logits) == len(domain.labels)
    assert torch.equal(logits, model(domain.inputs))
    # A network of these samples alone is another one.
    assert not torch.allclose(model(domain.inputs[:5]), logits[:5], atol=1e-7) or name == "MTL"
    with pytest.raises(InputError, match=r"^features: got a featurizer .* expected one that takes each sample alone"):
        open_subject(tmp_path / "whole", plugins=(__name__,))
    export_model(model, tmp_path / "whole", tmp_path / "weights.safetensors")
    for form in ("export", "torchscript"):
        file = tmp_path / f"{form}.pt"
        if name == "MTL of the paper":
            export_model(model, tmp_path / "whole", file, form)  # type: ignore[arg-type]
        else:
            with pytest.raises(InputError, match=f"^{form}: .* export its weights as safetensors$"):
                export_model(model, tmp_path / "whole", file, form)  # type: ignore[arg-type]


OF_GRADIENTS = Objective(penalty=Total(fishr=Fishr()))


@pytest.mark.parametrize(("changes", "where"), [
    ({"compute": Compute(micro_batches=2)}, "micro_batches"),
    ({"layers": ("featurizer", "head"), "objective": OF_GRADIENTS}, "layers: featurizer, head"),
    ({"featurizer": Frozen(RUNS["MTL"])}, "frozen"),
])  # fmt: skip
def test_refused_with_features_of_each_sample(changes: dict[str, Any], where: str) -> None:
    made = experiment(**{"featurizer": RUNS["MTL"]} | changes)
    with pytest.raises(InputError, match=f"^{where}: got a featurizer .* whose features of a sample depend on"):
        list(train(made))


def test_refused_on_ranks() -> None:
    with pytest.raises(InputError, match=r"^ranks: got a featurizer .*; train on one rank"):
        list(train(experiment(RUNS["MTL"]), ranks=Ranks(0, 2)))


@pytest.mark.parametrize(("made", "message"), [
    (lambda: ARM(MLP(), samples=0), "samples: got 0"),
    (lambda: ARM(MLP())((4,), torch.Generator()), "ARM: got inputs of shape"),
    (lambda: ARM(MLP(), form="other"), "form: got 'other'"),  # type: ignore[arg-type]
    (lambda: MTL(MLP(), ema=1.5), "ema: got 1.5"),
    (lambda: MTL(MLP(), form="paper"), "domains: got none"),
    (lambda: list(train(experiment(MTL(FeatureDropout(), domains=4, form="paper")))), "MTL: got a batch of 2 domains"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(made: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made()
