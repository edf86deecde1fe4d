"""Weights of a model under the names of torchvision or timm."""

from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.inference.trained_model import TrainedModel
from fishr.models.featurizers import Featurizer, without_weights
from fishr.models.frozen import FrozenFeaturizer
from fishr.models.initialization import seeded_by
from fishr.models.layer_split import SplitFeaturizer
from fishr.models.resnet import ResNet
from fishr.models.timm_backbone import TimmBackbone
from fishr.training.frozen_features import Frozen

_ROUNDING = 1e-4


@frozen(eq=False)
class NamedWeights:
    """Weights by name, and the network that loads them."""

    tensors: dict[str, Tensor]  # on the CPU
    owner: str  # of the names: "torchvision", "timm" or "fishr"
    code: str  # Python that builds the network, as ``network``
    reason: str = ""  # why the names are not those of torchvision or timm


@frozen(eq=False)
class _Network:
    """A network of torchvision or timm with its classifier."""

    module: nn.Module
    classifier: str  # name of its last layer
    prefix: str  # of its names in the featurizer
    code: str


def named_weights(model: TrainedModel) -> NamedWeights:
    """Return a model's weights under the names of torchvision or timm, or under ours where neither has the network.

    The other library's network is built and loads them strictly, and its logits must be the model's up to rounding.
    """
    network = _network(model.experiment.featurizer, model)
    if network is None:
        return _ours(model, f"neither torchvision nor timm has a {type(model.experiment.featurizer).__name__}")
    owner = network.code.split()[1]
    tensors = _renamed(model, network)
    if tensors is None:
        return _ours(model, f"the head is not the linear layer that {owner}'s network ends with")
    try:
        network.module.load_state_dict(tensors)
    except RuntimeError:
        return _ours(model, f"{owner}'s network has other layers than the features and one linear layer")
    inputs = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, wanted = network.module.eval()(inputs), model(inputs.to(model.device)).cpu()
    if not torch.allclose(got, wanted, rtol=_ROUNDING, atol=_ROUNDING * float(wanted.abs().max())):
        return _ours(model, f"{owner}'s network computes more than one linear layer on the features")
    return NamedWeights(tensors, owner, network.code)


def plain_featurizer(model: TrainedModel) -> nn.Module:
    """Return a model's featurizer; of a frozen one, the module that takes batches of any size in one pass."""
    match model.featurizer, model.experiment.featurizer:
        case FrozenFeaturizer() as whole, _:
            return whole.inner
        case SplitFeaturizer(below=FrozenFeaturizer() as below, above=above), Frozen(inner=inner):
            network = without_weights(inner)(model.shape, torch.Generator()).to(model.device).eval()
            # Both parts have the network's names.
            network.load_state_dict({**below.inner.state_dict(), **above.state_dict()})
            return network
        case featurizer, _:
            return featurizer


def _network(featurizer: Featurizer, model: TrainedModel) -> _Network | None:
    outputs, channels = _outputs(model), model.shape[0]
    match featurizer:
        case Frozen(inner=inner):
            return _network(inner, model)
        case ResNet(depth=depth):
            import torchvision

            with seeded_by(torch.Generator()):
                module = torchvision.models.get_model(f"resnet{depth}", num_classes=outputs)
                code = f"import torchvision\nnetwork = torchvision.models.resnet{depth}(num_classes={outputs})"
                if channels != 3:
                    module.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
                    code += f"\nnetwork.conv1 = torch.nn.Conv2d({channels}, 64, 7, 2, 3, bias=False)"
            return _Network(module, "fc", "", code)
        case TimmBackbone(name=name):
            import timm

            published: Any = timm.models.get_pretrained_cfg(name)
            options: dict[str, Any] = {"num_classes": outputs}
            if channels != 3:
                options["in_chans"] = channels
            if published.fixed_input_size:
                options["img_size"] = tuple(model.shape[1:])
            with seeded_by(torch.Generator()):
                module = timm.create_model(name, **options)
            given = "".join(f", {key}={value}" for key, value in options.items())
            code = f"import timm\nnetwork = timm.create_model({name!r}{given})"
            return _Network(module, str(published.classifier), "0.", code)
        case _:
            return None


def _outputs(model: TrainedModel) -> int:
    with torch.no_grad():
        return model(torch.zeros(1, *model.shape, device=model.device)).shape[1]


def _renamed(model: TrainedModel, network: _Network) -> dict[str, Tensor] | None:
    head = model.head
    own = network.module.state_dict().get(f"{network.classifier}.weight")
    if type(head) is not nn.Linear or own is None or own.numel() != head.weight.numel():
        return None
    bias = head.state_dict().get("bias", torch.zeros(len(head.weight)))
    # Some classifiers are convolutions of one pixel.
    last = {f"{network.classifier}.weight": head.weight.reshape(own.shape), f"{network.classifier}.bias": bias}
    features = plain_featurizer(model).state_dict()
    return _copies({name.removeprefix(network.prefix): tensor for name, tensor in features.items()} | last)


def _ours(model: TrainedModel, reason: str) -> NamedWeights:
    return NamedWeights(_copies(model.state_dict()), "fishr", "import fishr\nnetwork = fishr.load_model(RUN)", reason)


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
