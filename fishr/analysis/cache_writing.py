"""From a run or a recipe to a cache of its features, a part of a domain at a time; and from the cache to its head."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

import attrs
import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor, nn

import fishr
from fishr.analysis.cached_heads import head_of
from fishr.configuration import dumps, unstructure
from fishr.configuration.toml import parse_toml, toml_text
from fishr.data.caches import (
    Content,
    Section,
    Tree,
    open_features,
    rows_a_part,
    write_domains,
    write_features,
)
from fishr.errors import InputError
from fishr.losses import Loss, loss_deltas, outputs_of
from fishr.models.frozen import in_blocks
from fishr.statistics.functional_moments import per_sample_gradients
from fishr.statistics.linear_head import is_plain_linear
from fishr.statistics.merge import merge_moments
from fishr.statistics.moments import gradient_moments
from fishr.training.checkpoints import load
from fishr.training.compute import resolve_device
from fishr.training.experiment import Experiment
from fishr.training.frozen_features import domain_features
from fishr.training.model import place
from fishr.training.run_folder import CONFIGURATION, checkpoint_of
from fishr.training.state import TrainingState, build_model, first_state, state_to
from fishr.types import GradientMoments, Layout

Dtype = Literal["float32", "float16"]
Rows = dict[str, NDArray[Any]]
_GRADIENT_BYTES = 1 << 26
_MOMENT_ROWS = 4096


@frozen(eq=False)
class Featured:
    """Domains whose features are there, or can be computed part by part.

    Args:
        provenance: everything that decides the features.
        text: the head as a cache describes it.
        outputs: C, of the head.
        head: the module, in eval mode.
        loss: per-sample loss.
        sections: the domains.
        rows: (domain, start, stop) to features [n, F] and logits [n, C], float32, labels [n] and ids [n].

    Example:
        >>> from fishr.protocols import colored_digits
        >>> featured = featured_experiment(colored_digits())
        >>> featured.outputs, featured.rows(0, 64, 128)["features"].shape
        (1, (64, 390))
    """

    provenance: dict[str, Any]
    text: str
    outputs: int
    head: nn.Module
    loss: Loss
    sections: tuple[Section, ...]
    rows: Callable[[int, int, int], Rows]


def featured_experiment(
    experiment: Experiment,
    folder: Path | None = None,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    domains: tuple[str, ...] = (),
    chunk: int = 8192,
) -> Featured:
    """The domains of an experiment's data, through its featurizer.

    Args:
        experiment: whose data and featurizer.
        folder: of the run whose last checkpoint has the weights; None: the first weights of the experiment's seed.
        data_dir: where data files lie, for data that has files.
        device: "cpu", "cuda" or "auto".
        domains: names of those that are wanted; none: all.
        chunk: rows in one pass through the featurizer, which bounds memory; it is rounded up to a multiple of 64.

    Raises:
        InputError: no checkpoint, weights that do not fit, data that is missing, or no such domain.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> [section.name for section in featured_experiment(colored_digits(), domains=("gray",)).sections]
        ['gray']
    """
    where = resolve_device(device)
    data = experiment.data(experiment.seed, data_dir).to(where)
    model = build_model(experiment, data)
    if folder is None:
        state = first_state(experiment, model, len(data.training))
    else:
        state = _trained(folder, where)
        place(model, state.parameters, state.buffers)
    splits = ["training"] * len(data.training) + ["evaluation"] * len(data.evaluation)
    named = {
        domain.name: (domain, split) for domain, split in zip((*data.training, *data.evaluation), splits, strict=True)
    }
    for name in domains:
        if name not in named:
            raise InputError(f"--domain: got {name!r}, expected one of {', '.join(map(repr, named))}")
    chosen = [part for name, part in named.items() if not domains or name in domains]
    table = unstructure(experiment)
    block = -(-chunk // 64) * 64

    def rows(index: int, start: int, stop: int) -> Rows:
        domain, _ = chosen[index]
        part = domain.part(range(len(domain.labels))[start:stop])
        pairs = list(domain_features(model, experiment, state, part, block))
        features, logits = (torch.cat(found).to(torch.float32).numpy(force=True) for found in zip(*pairs, strict=True))
        labels = part.labels.numpy(force=True)
        return {"features": features, "labels": labels, "logits": logits, "ids": np.arange(start, start + len(labels))}

    config = dumps(experiment) if folder is None else _own_text(folder, experiment)
    head = {f"head.{name}": tensor for name, tensor in _tensors(model.head).items()}
    return Featured(
        provenance={
            "data": toml_text(table["data"]),
            "seed": experiment.seed,
            "featurizer": toml_text({"featurizer": table["featurizer"], "precision": experiment.compute.precision}),
            "transform": "none",
            "weights_sha256": _digest({f"featurizer.{name}": t for name, t in _tensors(model.featurizer).items()}),
            "head_sha256": _digest(head),
            "step": state.step,
            "mode": "eval",
            "dtype": "float32",
            "domains": tuple(domain.name for domain, _ in chosen),
            "experiment": config,
            "library": fishr.__version__,
            "torch": str(torch.__version__),
            "device": str(where),
        },
        text=toml_text({name: table[name] for name in ("head", "loss")}),
        outputs=outputs_of(experiment.loss, data.classes),
        head=model.head.eval(),
        loss=experiment.loss,
        sections=tuple(Section(domain.name, split, len(domain.labels)) for domain, split in chosen),
        rows=rows,
    )


def featured_cache(path: Path, device: str = "cpu", plugins: tuple[str, ...] = ()) -> Featured:
    """The domains of a feature cache.

    Args:
        path: a file that ``fishr cache features`` wrote.
        device: of the head.
        plugins: modules that the head and the loss may name.

    Raises:
        InputError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> from fishr.protocols import colored_digits
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "digits.h5")
        ...     written = cache_features(featured_experiment(colored_digits()), path)
        ...     featured_cache(path).rows(0, 0, 5)["features"].shape
        (5, 390)
    """
    cache = open_features(path)
    head, loss = head_of(cache, plugins)
    return Featured(
        provenance=cache.provenance,
        text=cache.head["text"],
        outputs=cache.head["outputs"],
        head=head.to(resolve_device(device)),
        loss=loss,
        sections=cache.sections,
        rows=cache.domain,
    )


def cache_features(
    featured: Featured, path: Path, dtype: Dtype = "float32", progress: Callable[[int], object] = lambda rows: None
) -> bool:
    """Write a feature cache; go on where a killed writer stopped.

    Args:
        featured: the domains.
        path: where.
        dtype: in which features are stored.
        progress: is told the rows of each part that is there.

    Returns:
        Whether it was written; False if it was there already, made of the same.

    Raises:
        InputError: something else is there, or another process is writing it.
        RunFailed: it could not be written.

    Example:
        >>> import tempfile
        >>> from fishr.protocols import colored_digits
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     featured, path = featured_experiment(colored_digits()), Path(folder, "digits.h5")
        ...     cache_features(featured, path), cache_features(featured, path)
        (True, False)
    """
    row = featured.rows(0, 0, 1)
    provenance = featured.provenance | {"dtype": dtype}
    return write_features(
        path, provenance, head_tree(featured, row), featured.sections, featured.rows, rows_a_part(row), progress
    )


def head_tree(featured: Featured, row: Rows) -> Tree:
    """The head as a cache describes it.

    Args:
        featured: whose head.
        row: any of its rows, for F.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> featured = featured_experiment(colored_digits())
        >>> head_tree(featured, featured.rows(0, 0, 1))["features"]
        390
    """
    parameters: Tree = {name: tensor.numpy(force=True) for name, tensor in _tensors(featured.head).items()}
    features = row["features"].shape[1]
    return {"text": featured.text, "outputs": featured.outputs, "features": features, "parameters": parameters}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = sha256()
    for name in sorted(tensors):
        array = tensors[name].contiguous().numpy(force=True)
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _trained(folder: Path, device: torch.device) -> TrainingState:
    checkpoint = load(checkpoint_of(folder), experiment_text=(folder / CONFIGURATION).read_bytes().decode())
    return state_to(attrs.evolve(checkpoint.state, penalty=None), device)


def _own_text(folder: Path, experiment: Experiment) -> str:
    """The run's own words, unless its settings were changed since."""
    text = (folder / CONFIGURATION).read_bytes().decode()
    return text if parse_toml(text) == unstructure(experiment) else dumps(experiment)


def cache_gradients(
    featured: Featured, path: Path, per_sample: bool = False, progress: Callable[[int], object] = lambda rows: None
) -> bool:
    """Write a gradient cache: of a linear head its factors, of another one moments and, if wanted, the gradients.

    Args:
        featured: the domains and the head.
        path: where.
        per_sample: keep the per-sample gradients [n, P] themselves.
        progress: is told the rows of each part that is there.

    Returns:
        Whether it was written; False if it was there already, made of the same.

    Raises:
        InputError: something else is there, another process is writing it, or the head has no such gradients.
        RunFailed: it could not be written.

    Example:
        >>> import tempfile
        >>> from fishr.analysis.cache_writing import featured_experiment
        >>> from fishr.data.caches import open_gradients
        >>> from fishr.protocols import colored_digits
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "gradients.h5")
        ...     written = cache_gradients(featured_experiment(colored_digits()), path)
        ...     open_gradients(path).form, open_gradients(path).moments().variance.shape
        ('factors', torch.Size([4, 391]))
    """
    layout = Layout.of(featured.head)
    row = featured.rows(0, 0, 1)
    if per_sample:
        form, columns, compute = "per-sample", ("gradients", "labels", "ids"), _gradients
        width = {"gradients": np.zeros((1, layout.size), np.float32)}
        part_rows, summary = rows_a_part(width), _merged
    elif is_plain_linear(featured.head):
        form, columns, compute = "factors", ("features", "deltas", "labels", "ids"), _factors
        part_rows, summary = rows_a_part(row), None
    else:
        form, columns, compute = "moments", (), _moments
        part_rows, summary = _MOMENT_ROWS, _merged
    shapes = {name: np.array(shape, np.int64) for name, shape in zip(layout.names, layout.shapes, strict=True)}
    content = Content(
        kind="fishr-gradients",
        provenance={"form": form} | featured.provenance,
        head=head_tree(featured, row),
        sections=featured.sections,
        compute=lambda domain, start, stop: compute(featured, featured.rows(domain, start, stop)),
        columns=columns,
        summary=summary,
        more={"form": form, "layout": {"names": layout.names, "shapes": shapes}},
    )
    return write_domains(path, content, part_rows, progress)


def _factors(featured: Featured, rows: Rows) -> Rows:
    features, labels = _tensors_of(featured, rows)
    with torch.no_grad():
        deltas = loss_deltas(featured.loss, in_blocks(featured.head, features), labels)
    return {name: rows[name] for name in ("features", "labels", "ids")} | {"deltas": deltas.numpy(force=True)}


def _moments(featured: Featured, rows: Rows) -> Tree:
    """Moments of the rows, so many at a time that their gradients stay within bounds."""
    features, labels = _tensors_of(featured, rows)
    size = _rows_at_once(featured)
    with torch.no_grad():
        found = [
            gradient_moments(featured.head, z, y, (len(y),), featured.loss, accumulate=torch.float64)
            for z, y in zip(features.split(size), labels.split(size), strict=True)
        ]
    together = merge_moments(*found)
    mean, variance = (part[0].numpy(force=True) for part in (together.mean, together.variance))
    return {"count": together.count[0], "mean": mean, "variance": variance}


def _gradients(featured: Featured, rows: Rows) -> Tree:
    features, labels = _tensors_of(featured, rows)
    size = _rows_at_once(featured)
    parts = zip(features.split(size), labels.split(size), strict=True)
    with torch.no_grad():
        found = torch.cat([per_sample_gradients(featured.head, z, y, featured.loss) for z, y in parts])
    wide = found.double()
    moments: Tree = {
        "count": len(found),
        "mean": wide.mean(0).numpy(force=True),
        "variance": wide.var(0, correction=0).numpy(force=True),
    }
    return moments | {"gradients": found.numpy(force=True), "labels": rows["labels"], "ids": rows["ids"]}


def _merged(parts: Iterator[Tree]) -> Tree:
    """Moments of a domain from those of its parts."""
    together: GradientMoments | None = None
    for part in parts:
        tree = cast(dict[str, Any], part)
        mean, variance = (torch.from_numpy(tree[name]).unsqueeze(0) for name in ("mean", "variance"))
        layout = Layout(("all",), ((mean.shape[1],),))
        found = GradientMoments((tree["count"],), mean, variance, layout)
        together = found if together is None else merge_moments(together, found)
    assert together is not None
    return {"count": together.count[0], "mean": together.mean[0].numpy(), "variance": together.variance[0].numpy()}


def _rows_at_once(featured: Featured) -> int:
    return max(1, _GRADIENT_BYTES // (4 * Layout.of(featured.head).size))


def _tensors_of(featured: Featured, rows: Rows) -> tuple[Tensor, Tensor]:
    device = next(featured.head.parameters()).device
    features, labels = (torch.from_numpy(np.require(rows[name], None, ["C", "W"])) for name in ("features", "labels"))
    return features.to(device), labels.to(device)
