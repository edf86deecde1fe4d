"""Time of a training step of a network's last blocks: all layers trained, those below frozen, and on cached outputs."""

from collections.abc import Callable
from importlib.util import find_spec

import attrs
import torch
from torch import nn

from benchmarks.machine import device, interleaved
from benchmarks.table import Cell, Number, Spread, Table
from benchmarks.ways import Disagreement
from fishr.data import Domain, Domains, Minibatch
from fishr.losses import CrossEntropy
from fishr.models import LinearHead, TimmBackbone
from fishr.models.frozen import in_blocks
from fishr.penalties import Fishr, Scaled, Total
from fishr.training import (
    Adam,
    Experiment,
    Frozen,
    LayersAbove,
    Objective,
    TrainingState,
    advance,
    build_model,
    first_state,
)
from fishr.training.layers_above import cut

_AT, _CLASSES = "blocks.4", 7


def table(quick: bool) -> Table:
    """Milliseconds of a step of each way, and KiB of an image's activations.

    Raises:
        Disagreement: the weights of the last two ways are not bit-identical.
    """
    sides = () if find_spec("timm") is None else (32,) if quick else (128, 224)
    return Table(
        "A step of EfficientNet-Lite0's blocks 5 and 6 and the head with Fishr, 3 domains × "
        f"{4 if quick else 32} images, Adam; weights frozen below and on cached outputs are bit-identical; [quartiles]",
        ("images", "all trained ms", "frozen below ms", "on outputs ms", "all / on outputs", "KiB an image, float16"),
        tuple((f"3×{side}×{side}", *_row(side, 4 if quick else 32, quick)) for side in sides),
    )


def _row(side: int, rows: int, quick: bool) -> tuple[Cell, ...]:
    network = TimmBackbone("tf_efficientnet_lite0", pretrained=False, freeze_norm=True)
    images = _noise(rows, (3, side, side))
    experiment = Experiment(
        name="layers above",
        data=None,  # pyright: ignore[reportArgumentType]
        featurizer=network,
        head=LinearHead(),
        loss=CrossEntropy(),
        objective=Objective(penalty=Total(fishr=Scaled(Fishr(ema=0.95), 1000.0))),
        optimizer=Adam(lr=1e-4),
        batches=Minibatch(rows),
        steps=1,
    )
    below, _, _ = cut(build_model(experiment, images).featurizer, _AT, images.shape)
    outputs = _through(below.eval(), images)
    frozen = attrs.evolve(experiment, featurizer=Frozen(network, at=_AT))
    cached = attrs.evolve(experiment, featurizer=LayersAbove(network, _AT, images.shape))
    after = [_stepper(one, domains)().parameters for one, domains in ((frozen, images), (cached, outputs))]
    for name in (name for name in after[1] if not torch.equal(after[0][name], after[1][name])):
        raise Disagreement(f"{name} after a step: got other bits on the layer's outputs than through the layers below")
    steppers = {
        "all": _stepper(experiment, images),
        "frozen": _stepper(frozen, images),
        "cached": _stepper(cached, outputs),
    }
    times = interleaved(steppers, rounds=3, quick=quick)
    kib = Number(2 * outputs.training[0].inputs[0].numel() / 1024, 1)  # pyright: ignore
    return *(times.milliseconds(name, 0) for name in steppers), Spread(*times.ratio("all", "cached"), 1), kib


def _through(below: nn.Module, images: Domains) -> Domains:
    with torch.no_grad():
        moved = [attrs.evolve(one, inputs=in_blocks(below, torch.as_tensor(one.inputs))) for one in images.training]
    return attrs.evolve(images, training=tuple(moved))


def _stepper(experiment: Experiment, domains: Domains) -> Callable[[], TrainingState]:
    model = build_model(experiment, domains)
    state = first_state(experiment, model, len(domains.training))
    return lambda: advance(model, experiment, state, domains.training)[0]


def _noise(rows: int, shape: tuple[int, ...]) -> Domains:
    generator = torch.Generator().manual_seed(0)

    def domain(name: str) -> Domain:
        inputs = torch.rand(rows, *shape, generator=generator).to(device())
        return Domain(name, inputs, torch.randint(_CLASSES, (rows,), generator=generator).to(device()))

    return Domains((domain("first"), domain("second"), domain("third")), (), classes=_CLASSES)
