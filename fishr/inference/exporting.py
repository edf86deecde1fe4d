"""A model as one file for other programs: weights by name, or a program of torch; with a card beside it."""

import io
import json
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fishr.errors import InputError, one_line
from fishr.files import write_atomically
from fishr.inference.model_card import model_card
from fishr.inference.named_weights import NamedWeights, named_weights, plain_featurizer
from fishr.inference.prediction_files import check_new_file
from fishr.inference.trained_model import TrainedModel

Form = Literal["safetensors", "pt", "torchscript", "export"]
_BY_SUFFIX: dict[str, Form] = {".safetensors": "safetensors", ".pt": "pt", ".pth": "pt", ".pt2": "export"}
_ROUNDING = 1e-4


def export_model(model: TrainedModel, run: Path, path: Path, form: Form | None = None) -> NamedWeights | None:
    """Write a model for other programs, and its card as Markdown beside it, ``path`` with the suffix .md.

    Weights have the names of torchvision's or timm's network with as many classes, which then loads them strictly;
    the weights of other networks have the names of ``load_model``'s module. A program takes batches of any size,
    [N, *shape], and returns logits.

    Args:
        model: The model of the run.
        run: Its folder, from which the card takes the numbers.
        path: The file to write; neither it nor the card may exist.
        form: "safetensors" or "pt", weights by name; "export", a program for ``torch.export.load``;
            "torchscript", a traced program for ``torch.jit.load``, which torch deprecates. None: by the suffix of the
            path, .safetensors, .pt or .pth, or .pt2 for "export".

    Returns:
        The weights and their names; None for a program.

    Raises:
        InputError: A file exists, the suffix is none of these, or the network cannot be written as a program.
        RunFailed: A file could not be written.
    """
    card = path.with_suffix(".md")
    if card == path:
        raise InputError(f"{path}: got a name that ends in .md, as the model's card does; choose another suffix")
    check_new_file(path)
    check_new_file(card)
    form = form or _form_of(path)
    weights = named_weights(model) if form in ("safetensors", "pt") else None
    content = _program(model, form) if weights is None else _weights(model, weights, form)
    text = model_card(model, run, path, form, weights)
    write_atomically(path, content)
    write_atomically(card, text.encode())
    return weights


def _form_of(path: Path) -> Form:
    suffix = path.suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise InputError(
            f"{path}: got a name that ends in none of {', '.join(_BY_SUFFIX)}; rename it, or add --as safetensors"
        )
    return _BY_SUFFIX[suffix]


def _weights(model: TrainedModel, weights: NamedWeights, form: str) -> bytes:
    if form == "pt":
        buffer = io.BytesIO()
        torch.save(weights.tensors, buffer)
        return buffer.getvalue()
    from safetensors.torch import save

    facts = {"shape": model.shape, "classes": model.class_names or model.classes, "step": model.step}
    return save(weights.tensors, {"format": "pt", **{name: json.dumps(value) for name, value in facts.items()}})


def _program(model: TrainedModel, form: str) -> bytes:
    network = nn.Sequential(OrderedDict(featurizer=plain_featurizer(model), head=model.head)).eval()
    random = torch.Generator().manual_seed(0)
    example, other = (torch.randn(rows, *model.shape, generator=random).to(model.device) for rows in (2, 3))
    buffer = io.BytesIO()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # torch.jit is deprecated, and tracing warns of shapes that it takes for constants: both runs are compared.
            warnings.simplefilter("ignore")
            got, wanted = _written(network, example, form, buffer)(other), network(other)
    except Exception as error:  # both compilers raise errors of many kinds
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise InputError(
            f"{form}: {type(model.experiment.featurizer).__name__} cannot be written as such a program "
            f"({one_line(lines[0])[:200]}); export its weights as safetensors"
        ) from error
    if not torch.allclose(got, wanted, rtol=_ROUNDING, atol=_ROUNDING * float(wanted.abs().max())):
        raise InputError(
            f"{form}: the program of {type(model.experiment.featurizer).__name__} computes other logits than the "
            "network; export its weights as safetensors"
        )
    return buffer.getvalue()


def _written(network: nn.Module, example: Tensor, form: str, buffer: io.BytesIO) -> nn.Module:
    """Write a program, and return it as it is read back."""
    if form == "torchscript":
        torch.jit.save(torch.jit.trace(network, example), buffer)
        return torch.jit.load(io.BytesIO(buffer.getvalue()))
    batch = torch.export.Dim("batch", min=1)
    torch.export.save(torch.export.export(network, (example,), dynamic_shapes=({0: batch},)), buffer)
    return torch.export.load(io.BytesIO(buffer.getvalue())).module()
