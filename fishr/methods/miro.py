"""MIRO: features close to those of the first weights, by learned variances."""

from collections.abc import Callable
from copy import deepcopy
from math import expm1, log

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn.functional import softplus

from fishr.checks import layer_names, number
from fishr.errors import InputError
from fishr.methods.method import Hparams, Method
from fishr.methods.ranges import Range, choice
from fishr.mixed_samples import refuse_mixed_samples
from fishr.models.featurizers import Featurizer
from fishr.models.resnet import ResNet
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.penalty import Memoryless
from fishr.ranks import sum_over_ranks
from fishr.statistics.pure_forward import twin
from fishr.training.objective import Objective

_EPS = 1e-5


def _no_layers(record: object, attribute: object, value: tuple[str, ...]) -> None:
    if value:
        layer_names(record, attribute, value)  # pyright: ignore[reportArgumentType]


@frozen
class Anchored:
    """Featurizer with a frozen copy of its first weights, and a learned variance of each channel, for ``MIRO``.

    The features are those of the network alone. The copy is in eval mode. It and the variances are in checkpoints;
    ``load_model`` leaves them out.

    Args:
        inner: The network, with the published weights that it is to stay close to.
        layers: Names of layers below the network whose outputs are compared too, beside the features. Their outputs are
            computed once more, which costs a second pass through the network.
        variance: First value of the variances.

    Raises:
        InputError: A variance of 10⁻⁵ or less. When called: a layer that the network has not.

    Example:
        >>> from fishr.models import MLP
        >>> module = Anchored(MLP(widths=(3,)))((2,), torch.Generator().manual_seed(0))
        >>> [(name, tuple(p.shape)) for name, p in module.named_parameters() if p.requires_grad]
        [('network.1.weight', (3, 2)), ('network.1.bias', (3,)), ('variances.0', (3,))]
    """

    inner: Featurizer
    layers: tuple[str, ...] = field(default=(), validator=_no_layers)
    variance: float = field(default=0.1, validator=number(_EPS, above=True))

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        """Return the module from inputs [N, *shape] to features [N, F]."""
        network = self.inner(shape, generator)
        refuse_mixed_samples(network, "anchor", "anchor a plain network")
        kind = next((p.dtype for p in network.parameters()), torch.float32)
        example = torch.zeros(2, *shape, dtype=kind, device=generator.device)
        return AnchoredNetwork(network, self.layers, example, self.variance)

    def features(self, shape: tuple[int, ...]) -> int:
        """Return F, the number of features for inputs [N, *shape]."""
        return self.inner.features(shape)


class AnchoredNetwork(nn.Module):
    """The module of ``Anchored``."""

    def __init__(self, network: nn.Module, layers: tuple[str, ...], example: Tensor, variance: float) -> None:
        super().__init__()
        self.network, self.anchor, self.layers = network, deepcopy(network).eval().requires_grad_(False), layers
        known = dict(network.named_modules())
        for layer in layers:
            if layer not in known:
                raise InputError(f"layers: got {layer!r}, expected names below the network, such as {_some(known)}")
        with torch.no_grad():
            outputs = outputs_of(self.anchor, layers, example)
        first = log(expm1(variance - _EPS))
        self.variances = nn.ParameterList(torch.full(out.shape[1:2], first).to(out) for out in outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features of the network."""
        return self.network(inputs)

    def train(self, mode: bool = True) -> "AnchoredNetwork":
        """Set the network's mode; the copy stays in eval mode."""
        super().train(mode)
        self.anchor.eval()
        return self


def _some(names: dict[str, nn.Module]) -> str:
    return ", ".join([name for name in names if name][:4])


def outputs_of(network: nn.Module, layers: tuple[str, ...], inputs: Tensor) -> list[Tensor]:
    """Return the outputs of layers, and the network's, in that order."""
    found = dict[str, Tensor]()

    def hook(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            # A copy, because the next layer may work in place.
            found[name] = output.clone()

        return keep

    handles = [network.get_submodule(name).register_forward_hook(hook(name)) for name in layers]
    try:
        features = network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [*(found[name] for name in layers), features]


@frozen
class MIRO(Memoryless):
    """Σ_l ½ mean[(z_l − z′_l)² / σ_l² + log σ_l²], of outputs z_l of an ``Anchored`` featurizer and z′_l of its copy.

    The mean is over samples and entries; σ_l² has a value for each channel (axis 1), softplus of a parameter plus 10⁻⁵.
    The optimizer of the network trains the variances: they learn ten times as fast with
    ``lr_factors = {"featurizer.variances": 10}``. Up to a constant, the penalty bounds the negative mutual information
    of the features and those of the first weights.

    Raises:
        InputError: When called, a featurizer that is not ``Anchored``, or samples without a label.

    Example:
        >>> from fishr.models import MLP
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> module = Anchored(MLP(widths=(3,)))((2,), torch.Generator().manual_seed(0))
        >>> batch = DomainBatch(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]), sizes=(2, 2))
        >>> value, _ = MIRO()(observe(module, nn.Linear(3, 2), batch), (), step=0)  # ½ log 0.1
        >>> round(value.item(), 4)
        -1.1513

    Source:
        Cha et al., Domain generalization by mutual-information regularization with pre-trained models, ECCV 2022
        (arXiv 2203.10789), with means that are the outputs themselves.
    """

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim."""
        module, inputs, own = seen.featurizer, seen.batch.inputs, seen.own.features
        if not isinstance(module, AnchoredNetwork):
            raise InputError(
                f"MIRO: got a {type(module).__name__} as the featurizer, expected one with a copy of its "
                'first weights; use featurizer.kind = "Anchored" with the network as inner'
            )
        if len(own) != len(inputs):
            raise InputError(f"MIRO: got {len(inputs) - len(own)} samples without a label; leave them out of the batch")
        with torch.no_grad():
            anchors = outputs_of(module.anchor, module.layers, inputs.clone())
        outputs = [own]
        if module.layers:
            outputs = [*outputs_of(twin(module.network), module.layers, inputs.clone())[:-1], own]
        total, samples = own.new_zeros(()), sum(seen.sizes)
        for output, anchor, scale in zip(outputs, anchors, module.variances, strict=True):
            variance = (softplus(scale) + _EPS).view(1, -1, *[1] * (output.ndim - 2))
            terms = (output - anchor.to(output.dtype)).square() / variance + variance.log()
            total = total + sum_over_ranks(terms.sum(), seen.ranks) / (samples * output[0].numel())
        return total / 2, state


def _anchored(inner: Featurizer, hparams: Hparams) -> Featurizer:
    blocks = ("layer1", "layer2", "layer3", "layer4") if isinstance(inner, ResNet) else ()
    return Anchored(inner, blocks)


METHODS = {
    "MIRO": Method(
        {"miro_lambda": Range(0.1, choice((0.01, 0.1, 1.0)))},
        lambda h: Objective(penalty=Total(miro=Scaled(MIRO(), h["miro_lambda"]))),
        lambda h: {"lr_factors": {"featurizer.variances": 10.0}},
        featurizer=_anchored,
    )
}
