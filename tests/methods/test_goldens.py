"""Methods against DomainBed: weights after four updates, and hyper-parameters.

All runs are checked on images of 4 x 4, and two on 28 x 28. ``FISHR_GOLDENS=full`` checks all on 28 x 28 too.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from golden_runs import HPARAMS, RUNS, SMALL_RUNS, buffers_of, checksum, experiment_of, updates
from torch import Tensor

from fishr.data.environments import seed_hash
from fishr.methods import METHODS
from fishr.observation import Observation
from fishr.protocols.domainbed.hyperparameters import hyperparameters
from fishr.seeding import seeded
from fishr.transforms.mixup import Mixup, mix_domains

LARGE = list(RUNS) if os.environ.get("FISHR_GOLDENS") == "full" else ["Fishr/active", "ARM/default"]
OURS = [
    pytest.param(run, side, marks=() if run == "Fishr/active" and side == 4 else pytest.mark.slow)
    for run, side in [*((run, 4) for run in SMALL_RUNS), *((run, 28) for run in LARGE)]
    if run.partition("/")[0] in METHODS
]
# Modules that DomainBed makes and never uses.
IDLE = {"TRM": {"heads.3"}, "DANN": {"class_embeddings"}}
# Sums of kernels in another order, and a mask that is in float32.
TOLERANCES = {"MMD": 1e-8, "CausIRL_MMD": 1e-8, "ANDMask": 1e-6}


def noise_of_domainbed(draws: Any) -> Callable[[Tensor, bool], Tensor]:
    """The noise of MTL in each step and in the prediction, which was seeded by 99."""
    steps = iter((0, 1, 2, 3, 99))

    def noise(features: Tensor, training: bool) -> Tensor:
        step = next(steps)
        with seeded(step, features.device):
            parts = [torch.randn_like(part) for part in features.split(8)]
        if training:
            drawn = [checksum(part.flatten()) for part in parts]
            assert drawn == [pytest.approx(sums, rel=1e-9) for _, _, sums in draws[step]]
        return torch.cat(parts)

    return noise


def selfreg_of_domainbed(draws: Any) -> Callable[[Observation], tuple[float, Tensor, Tensor]]:
    """The draws of SelfReg in each step: a share, and two permutations of the samples of each class."""
    steps = iter(draws)

    def drawn(seen: Observation) -> tuple[float, Tensor, Tensor]:
        (*_, share), *permutations = next(steps)
        first, second = torch.empty(2, len(seen.labels), dtype=torch.long)
        # In the order of a sort that is not stable, as DomainBed's.
        labels, order = seen.labels.sort()
        for label in range(3):
            rows = order[labels == label]
            for partners, (*_, permutation) in zip((first, second), permutations[2 * label :], strict=False):
                partners[rows] = rows[permutation]
        return share, first, second

    return drawn


def uniform_of_domainbed(seen: Observation, step: int, draws: Any) -> Tensor:
    """The noise of URM."""
    with seeded(step, seen.features.device):
        noise = torch.rand_like(seen.features)
    ((_, _, sums),) = draws
    assert checksum(noise.flatten()) == pytest.approx(sums, rel=1e-9)
    return noise


def sagnet_of_domainbed() -> Callable[[Observation, str], tuple[Tensor, Tensor]]:
    """The draws of SagNet, which follow ``torch.manual_seed(step)``."""
    steps, left = iter(range(4)), dict[str, tuple[Tensor, Tensor]]()

    def drawn(seen: Observation, name: str) -> tuple[Tensor, Tensor]:
        if not left:
            with seeded(next(steps), seen.features.device):
                for part in ("content", "style", "adversary"):
                    left[part] = torch.rand(24, 1, dtype=torch.float64), torch.randperm(24)
        return left.pop(name)

    return drawn


@pytest.mark.parametrize(("run", "side"), OURS)
def test_four_updates_are_domainbeds(run: str, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    golden, (algorithm, _) = (RUNS if side == 28 else SMALL_RUNS)[run], run.split("/")
    if algorithm.startswith("CausIRL"):
        cuts = iter([[int(draw[-1]) for draw in step] for step in golden["draws"]])
        monkeypatch.setattr("fishr.methods.causirl.random_cuts", lambda seen: next(cuts))
    if run == "ERMPlusPlus/active":  # DomainBed's average began at update 3
        monkeypatch.setattr("fishr.methods.two_phases.AVERAGED_FROM", 2)
    if algorithm == "MLDG":
        orders = iter([step[0][-1] for step in golden["draws"]])
        monkeypatch.setattr("fishr.descents.mldg.random_order", lambda gradients: next(orders))
    if algorithm == "Mixup":
        drawn = iter([(step[0][-1], [draw[-1] for draw in step[1:]]) for step in golden["draws"]])
        monkeypatch.setattr(
            Mixup, "__call__", lambda self, batch, _, outputs: mix_domains(batch, *next(drawn), outputs)
        )
    if algorithm == "URM":
        noises = zip(range(4), golden["draws"], strict=True)
        monkeypatch.setattr("fishr.methods.urm.uniform_like", lambda seen: uniform_of_domainbed(seen, *next(noises)))
    if algorithm == "ADRMX":
        orders = iter([torch.tensor(draw[-1]) for draw in step] for step in golden["draws"] if step)
        monkeypatch.setattr("fishr.methods.adrmx.permutations_of", lambda seen: next(orders))
    if algorithm == "MTL":
        monkeypatch.setattr("fishr.methods.mtl.noise_of", noise_of_domainbed(golden["draws"]))
    if algorithm == "SelfReg":
        monkeypatch.setattr("fishr.methods.selfreg.draws_of", selfreg_of_domainbed(golden["draws"]))
    if algorithm == "SagNet":
        monkeypatch.setattr("fishr.methods.sagnet.draws_of", sagnet_of_domainbed())
    found, predictions, last = updates(experiment_of(algorithm, golden["hparams"]), side)
    tolerance = TOLERANCES.get(algorithm, 1e-9)
    for step, (ours, theirs) in enumerate(zip(found, [golden["first"], *golden["weights"]], strict=True)):
        assert ours.keys() == theirs.keys() - IDLE.get(algorithm, set())
        for role, sums in ours.items():
            assert sums == pytest.approx(theirs[role], rel=tolerance), f"{role} after {step} updates"
    # A logit may be close to zero.
    scale = float(predictions.abs().max())
    assert predictions[:2].numpy() == pytest.approx(np.array(golden["predict"]), rel=tolerance, abs=tolerance * scale)
    for name, sums in golden.get("buffers", {}).items():
        assert buffers_of(last)[name] == pytest.approx(sums, rel=tolerance), name


@pytest.mark.parametrize("algorithm", [name for name in METHODS if name in HPARAMS])
def test_hyperparameters_are_domainbeds(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_erm = HPARAMS["ERM"]
    groups = HPARAMS[algorithm] if algorithm != "ERM" else {dataset: {} for dataset in of_erm}
    for datasets, draws in groups.items():
        for dataset in datasets.split():
            for key, shared in of_erm[dataset].items():
                # "1" and "2" are seeds of the draws by themselves.
                alone = {(int(key), 0): int(key)} if key in ("1", "2") else {}
                monkeypatch.setattr(
                    "fishr.protocols.domainbed.hyperparameters.seed_hash",
                    lambda *parts, alone=alone: alone.get(parts) or seed_hash(*parts),
                )
                hparams_seed, trial_seed = next(iter(alone), (0, 0)) if ":" not in key else map(int, key.split(":"))
                found = hyperparameters(dataset, METHODS[algorithm].ranges_on(dataset), hparams_seed, trial_seed)
                others = {"data_augmentation": True, "class_balanced": False, "nonlinear_classifier": False}
                assert found == others | shared | draws.get(key, {})
