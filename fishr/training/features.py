"""Features and logits of whole domains, each row to the same bits wherever one begins."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fishr.data.domains import Domain
from fishr.data.reading import chunks
from fishr.models.frozen import block_of, features_by_block, in_blocks
from fishr.statistics.moments import at_least_float32
from fishr.training.experiment import Experiment
from fishr.training.model import Model, evaluating, place
from fishr.training.state import TrainingState


def domain_features(
    model: Model, experiment: Experiment, state: TrainingState, domain: Domain, chunk: int = 8192, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """What the featurizer makes of a domain, and the head of that, in eval mode and without a graph.

    The bits of a row's features depend neither on ``chunk`` nor on ``start``, and a frozen featurizer gives the same
    in training. Those of its logits neither, as long as both are multiples of 64.

    Args:
        model: the experiment's modules, on the domain's device; their modes are restored before each yield.
        experiment: for its precision.
        state: the weights.
        domain: n rows.
        chunk: rows of each pair that is yielded at most, which bounds memory; large inputs come in fewer.
        start: the row to begin at.

    Yields:
        Features [rows, F] and logits [rows, C], float32 or wider, in the domain's order.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.state import build_model, first_state
        >>> experiment = colored_digits()
        >>> domains = experiment.data(experiment.seed, None)
        >>> model = build_model(experiment, domains)
        >>> state = first_state(experiment, model, 2)
        >>> pairs = domain_features(model, experiment, state, domains.training[0], chunk=2500)
        >>> [(tuple(features.shape), tuple(logits.shape)) for features, logits in pairs]
        [((2500, 390), (2500, 1)), ((750, 390), (750, 1))]
    """
    block: int | None = None
    for inputs, _ in chunks(domain, chunk, start):
        place(model, state.parameters, state.buffers)
        with torch.no_grad(), evaluating(model):
            with experiment.compute.products(), experiment.compute.autocast(inputs.device):
                block = block or block_of(model.featurizer, inputs)
                features = at_least_float32(features_by_block(model.featurizer, inputs, block))
            weights = next((p.dtype for p in model.head.parameters()), features.dtype)
            logits = at_least_float32(in_blocks(model.head, features.to(weights)))
        yield features, logits
