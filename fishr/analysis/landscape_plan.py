"""Plan of a landscape: the module and weights that move, directions, axes, and the function that scores each grid."""

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from attrs import asdict, frozen
from torch import Tensor, nn

from fishr.analysis.landscape_options import Options
from fishr.analysis.subject import Snapshot, Subject
from fishr.data.domains import Domain
from fishr.data.reading import chunks, tensor_of
from fishr.errors import InputError
from fishr.landscape.directions import (
    Directions,
    eigen_directions,
    gradient_directions,
    random_directions,
    random_lines,
)
from fishr.landscape.grid import grid_axes
from fishr.landscape.linear_surface import linear_scores
from fishr.landscape.network_surface import network_scores
from fishr.landscape.plane import Plane, Samples, Scores, Weights, flattened, weights_of
from fishr.landscape.surface import Frames, Surface
from fishr.landscape.trajectory import checkpoint_directions, chord, pca_directions
from fishr.statistics.linear_heads import is_plain_linear
from fishr.statistics.pure_forward import pure_forward, twin
from fishr.types import chained

# Samples × grid points of one part of a linear head's landscape: a few seconds of work.
_PART = 1 << 27
_MOST_FRAMES = 48


@frozen(eq=False)
class Plan:
    """A landscape before its evaluation: its surface has NaN for all scores."""

    surface: Surface
    # Scores at values of α and β: of the plane and its frames, or of each line.
    grids: tuple[Callable[[Tensor, Tensor], Scores], ...]
    # Values of α in one part.
    rows: int

    @property
    def ys(self) -> Tensor:
        """Values of β, a single 0 for lines."""
        return self.surface.axes[1] if self.surface.plane else torch.zeros(1, dtype=torch.float64)

    @property
    def key(self) -> str:
        """A hash of everything that determines the scores."""
        surface = self.surface
        sources = [surface.settings, surface.source["key"], surface.source.get("second")]
        digest = hashlib.sha256(json.dumps(sources).encode())
        for vector in surface.directions.vectors:
            digest.update(flattened(vector).numpy(force=True).tobytes())
        return digest.hexdigest()


def plan_landscape(subject: Subject, options: Options, second: Subject | None = None) -> Plan:
    """Choose directions, axes and route; ``second`` is the other end of an interpolation."""
    options.check(subject, second)
    module, samples = _module_of(subject, options), _samples_of(subject, options)
    # Between two runs, running means are weights as well; else they stay those of the center.
    center = weights_of(module, buffers=second is not None)
    directions = _directions(subject, options, second, module, samples, center)
    axes = grid_axes(directions, options.grid, options.span)
    linear = is_plain_linear(module) and all(inputs.ndim == 2 for inputs, _ in samples)

    # A head moves on the features of the frame's own featurizer.
    features = lru_cache(maxsize=1)(partial(_features_at, subject)) if options.parameters == "head" else None

    def scores(plane: Plane, snapshot: Snapshot | None, xs: Tensor, ys: Tensor) -> Scores:
        read = features(snapshot) if features and snapshot else samples
        if linear:
            return linear_scores(plane, read, xs, ys, subject.seen.loss)
        return network_scores(module, plane, read, xs, ys, subject.seen.loss)

    vectors = [directions.vectors] if len(axes) == 2 else [(vector,) for vector in directions.vectors]
    grids = [partial(scores, Plane(center, *some), None) for some in vectors]
    shape = (len(subject.domains), len(axes[0]), len(axes[1]) if len(axes) == 2 else len(grids))
    frames = _frames(subject) if options.animate else ()
    for snapshot in frames:
        grids.append(partial(scores, Plane(_moved(snapshot, options, center), *directions.vectors), snapshot))
    surface = Surface(
        directions=directions,
        axes=axes,
        domains=subject.domains,
        splits=subject.splits,
        scores=_unevaluated(*shape),
        parameters=tuple(center),
        route="affine logits of the linear head" if linear else "torch.func.functional_call",
        frames=Frames(tuple(s.step for s in frames), _unevaluated(len(frames), *shape)) if frames else None,
        source=dict(subject.source) | ({} if second is None else {"second": second.source["key"]}),
        settings=json.dumps(asdict(options) | {"domains": subject.domains}, sort_keys=True),
        titles=subject.titles,
        every=subject.every,
    )
    work = sum(len(labels) for _, labels in samples) * (len(axes[1]) if len(axes) == 2 else 1)
    return Plan(surface, tuple(grids), max(1, _PART // work) if linear else 1)


def _unevaluated(*shape: int) -> Scores:
    nothing = torch.full(shape, torch.nan, dtype=torch.float64)
    return Scores(nothing, nothing)


def _module_of(subject: Subject, options: Options) -> nn.Module:
    if options.parameters == "head" or subject.network is None:
        return subject.seen.head
    return chained(subject.network.featurizer, subject.seen.head)


def _samples_of(subject: Subject, options: Options) -> Samples:
    samples = subject.seen.domain_samples
    if options.parameters == "head" or subject.network is None:
        return samples
    inputs = zip(subject.network.inputs, samples, strict=True)
    return [(tensor_of(read).to(labels.device), labels) for read, (_, labels) in inputs]


def _directions(
    subject: Subject, options: Options, second: Subject | None, module: nn.Module, samples: Samples, center: Weights
) -> Directions:
    names, titles = subject.domains, dict(zip(subject.domains, subject.titles, strict=True))
    match options.kind:
        case "random":
            return random_directions(center, options.seed)
        case "line":
            return random_lines(center, options.seed, options.lines)
        case "interpolation":
            assert second is not None
            end = weights_of(_module_of(second, options), buffers=True)
            return chord(center, end, (subject.name, second.name))
        case "eigen":
            (name,) = options.of or names[:1]
            return eigen_directions(module, *samples[names.index(name)], titles[name], subject.seen.loss)
        case "gradients":
            pair = options.of or names[:2]
            if len(pair) != 2:
                raise InputError(f"gradients: got {len(pair)} domain, expected two to lay a plane through")
            first, other = (samples[names.index(name)] for name in pair)
            return gradient_directions(module, first, other, (titles[pair[0]], titles[pair[1]]), subject.seen.loss)
        case "pca" | "checkpoints":
            return _through_checkpoints(subject, options, center)


def _through_checkpoints(subject: Subject, options: Options, center: Weights) -> Directions:
    """Return directions through the kept checkpoints, with the weights of the center last."""
    found = [(f"step {snapshot.step}", _moved(snapshot, options, center)) for snapshot in subject.trajectory]
    if found and all(torch.equal(value, center[name]) for name, value in found[-1][1].items()):
        found.pop()
    found.append((f"step {subject.source.get('step', 'the last')}", center))
    if options.kind == "checkpoints":
        if len(found) < 3:
            raise InputError(
                f"{subject.name}: kept {len(found)} checkpoints, expected at least 3; train with --keep-checkpoints "
                "and a smaller checkpoint_every"
            )
        found = [found[0], found[(len(found) - 1) // 2], found[-1]]
    steps, visited = [step for step, _ in found], [weights for _, weights in found]
    return (pca_directions if options.kind == "pca" else checkpoint_directions)(visited, steps)


def _moved(snapshot: Snapshot, options: Options, center: Weights) -> Weights:
    prefix = "head." if options.parameters == "head" else ""
    return {name: snapshot.parameters[prefix + name] for name in center}


def _frames(subject: Subject) -> tuple[Snapshot, ...]:
    """Return the kept checkpoints, or evenly spread ones if there are many."""
    kept = subject.trajectory
    count = min(len(kept), _MOST_FRAMES)
    return tuple(kept[round(i * (len(kept) - 1) / (count - 1))] for i in range(count))


def _features_at(subject: Subject, snapshot: Snapshot) -> Samples:
    network, prefix = subject.network, "featurizer."
    assert network is not None
    weights = {name.removeprefix(prefix): p for name, p in snapshot.parameters.items() if name.startswith(prefix)}
    copied = twin(network.featurizer).eval()
    found = list[tuple[Tensor, Tensor]]()
    with torch.no_grad():
        for name, inputs, (_, labels) in zip(subject.domains, network.inputs, subject.seen.domain_samples, strict=True):
            read = chunks(Domain(name, inputs, labels), 1024)
            found.append((torch.cat([pure_forward(copied, some, weights) for some, _ in read]), labels))
    return found
