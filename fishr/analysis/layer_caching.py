"""Write the outputs of one layer of a featurizer to a file, with the weights of the layers above it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from attrs import frozen

from fishr.analysis.cache_source import CacheSource, cache_source
from fishr.data.caches.activation_cache import write_activations
from fishr.data.caches.domain_rows import Section
from fishr.data.caches.encoding import Array
from fishr.data.reading import chunks
from fishr.models.frozen import block_of, in_blocks
from fishr.models.layer_split import module_name
from fishr.models.weight_files import weights_digest
from fishr.statistics.moments import at_least_float32
from fishr.training.experiment import Experiment
from fishr.training.layers_above import cut
from fishr.training.model import place


@frozen(eq=False)
class LayerOutputs:
    """Domains whose activations at a layer are computed part by part."""

    provenance: dict[str, Any]  # everything that decides them
    layer: dict[str, Any]  # its name and shapes, and the weights above it
    sections: tuple[Section, ...]
    rows: Callable[[int, int, int], dict[str, Array]]  # (domain, start, stop) to activations [n, ...], labels, ids


def layer_outputs(
    experiment: Experiment,
    at: str,
    folder: Path | None = None,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    domains: tuple[str, ...] = (),
    chunk: int = 8192,
) -> LayerOutputs:
    """Return the outputs of a layer for the domains of an experiment's data, with a run's last or the first weights."""
    source = cache_source(experiment, folder, data_dir, device, domains)
    network = source.model.featurizer
    below, above, outputs = cut(network, at, source.data.shape)
    layer = {
        "at": module_name(network, at),
        "inputs": np.array(source.data.shape),
        "shape": np.array(outputs.shape[1:]),
        "classes": source.data.classes,
        "below_sha256": weights_digest(below),
        "weights": {name: tensor.numpy(force=True) for name, tensor in above.state_dict().items()},
        **source.class_names,
    }
    return LayerOutputs(
        source.provenance | {"at": layer["at"]}, layer, source.sections, _Rows(source, below.eval(), chunk)
    )


def cache_layer(
    outputs: LayerOutputs,
    path: Path,
    dtype: Literal["float32", "float16"] = "float32",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> bool:
    """Write an activation cache and return True; return False if it exists already. A killed run resumes."""
    return write_activations(
        path, outputs.provenance | {"dtype": dtype}, outputs.layer, outputs.sections, outputs.rows, progress
    )


class _Rows:
    """Computes activations as training through ``Frozen(inner, at=...)`` does, to the bit."""

    def __init__(self, source: CacheSource, below: torch.nn.Module, chunk: int) -> None:
        self._source, self._below, self._chunk = source, below, chunk
        self._block: int | None = None

    def __call__(self, index: int, start: int, stop: int) -> dict[str, Array]:
        source, parts = self._source, list[torch.Tensor]()
        part, compute = source.part(index, start, stop), source.experiment.compute
        place(source.model, source.state.parameters, source.state.buffers)
        for inputs, _ in chunks(part, self._chunk):
            with torch.no_grad(), compute.products(), compute.autocast(inputs.device):
                self._block = self._block or block_of(self._below, inputs)
                parts.append(at_least_float32(in_blocks(self._below, inputs, self._block)).float())
        labels = part.labels.numpy(force=True)
        return {
            "activations": torch.cat(parts).numpy(force=True),
            "labels": labels,
            "ids": np.arange(start, start + len(labels)),
        }
