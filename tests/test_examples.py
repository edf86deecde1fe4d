"""The examples keep what they promise, each run as a person runs it: by itself, from some other folder."""

import json
import re
import runpy
import subprocess
from pathlib import Path

import pytest
from scripts import EXAMPLES, start

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]
NUMBER = r"([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)"


def output(script: str, folder: Path) -> str:
    """What an example prints; a warning is an error."""
    done = start(["-W", "error", str(EXAMPLES / script)], folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def train_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``fishr train own_penalty.toml …`` in the examples' folder, as the example says."""
    return start(["-c", "from fishr.commands import main; main()", "train", "own_penalty.toml", *arguments], EXAMPLES)


def numbers(pattern: str, text: str) -> list[tuple[float, ...]]:
    """The numbers at the places N of each match of a pattern."""
    found = [match.groups() for match in re.finditer(pattern.replace("N", NUMBER), text)]
    assert found, f"no {pattern!r} in:\n{text}"
    return [tuple(map(float, groups)) for groups in found]


def images(root: Path, environments: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """Three random images of each class in each environment."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for folder in (root / environment / name for environment in environments for name in classes):
        folder.mkdir(parents=True)
        for index in range(3):
            Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{index}.jpg")


def test_own_loop_answers_by_the_shape_rather_than_the_color(tmp_path: Path) -> None:
    said = output("own_loop.py", tmp_path)
    pattern = ": accuracy N on the training domains, N with reversed colors"
    without, penalised = numbers(pattern, said)
    # Color alone is right in 85 % of the training rows and in 10 % of the reversed ones; three rows of four
    # have the label that their shape says.
    assert without[0] > 0.85
    assert without[1] < 0.35
    assert 0.6 < penalised[0] < 0.85
    assert penalised[1] > without[1] + 0.2


def test_own_penalty_falls_once_its_weight_rises(tmp_path: Path) -> None:
    said = output("own_penalty.py", tmp_path)
    ((value, updates),) = numbers("alone: value N after N update", said)
    assert value > 0
    assert updates == 1
    # The sum's table: name, weight, what is read, graph, numbers remembered (average [2, 10] and a count).
    assert re.search(r"gap +10 +moments +yes +21\n", said)
    assert re.search(r"mine +0\.1 +moments +yes +none\n", said)
    (first, gap_before, weight_before), (last, gap_after, weight_after) = numbers("step N: gap N at weight N", said)
    assert (first, weight_before) == (59, 1)
    assert (last, weight_after) == (199, 10_000)
    assert 0 < gap_after < gap_before / 10
    ((flip_2, flip_1),) = numbers("flip 0.2 N, flip 0.1 N, reversed", said)
    assert min(flip_2, flip_1) > 0.7


def test_own_penalty_trains_from_the_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = train_command("--plugin", "own_penalty", "--set", "steps=3", "--format", "json", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)
    kept = (folder / "config.toml").read_text()
    assert 'kind = "own_penalty:MeanGradientGap"' in kept
    assert 'kind = "own_penalty:disagreement"' in kept


def test_own_penalty_is_not_imported_unasked(tmp_path: Path) -> None:
    done = train_command("--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert "--plugin own_penalty" in done.stderr


def test_statistics_merge_exactly_and_tell_the_third_domain_apart(tmp_path: Path) -> None:
    said = output("statistics_only.py", tmp_path)
    assert "variance: (3, 68) [domain, parameter] of weight, bias\n" in said
    ((*counts, apart),) = numbers(r"merged: \(N, N, N\) samples, variances differ from the whole's by N", said)
    assert counts == [200, 300, 100]
    assert apart < 1e-5
    rows = numbers("\n  N  N  N(?=\n)", said)
    for i in range(3):
        assert rows[i][i] == 0
        for j in range(3):
            assert rows[i][j] == rows[j][i]
    assert min(rows[0][2], rows[1][2]) > 10 * rows[0][1] > 0
    # (1/K) Σ ‖v_e − v̄‖² = (1/2K²) Σ_AB ‖v_A − v_B‖², and the example divides by the 68 parameters.
    ((distance,),) = numbers("distance to mean: N\n", said)
    assert distance == pytest.approx(sum(map(sum, rows)) / (2 * 9 * 68), rel=2e-3)
    ((scale_free,),) = numbers("scale-free distance: N\n", said)
    assert scale_free > 0.1
    ((same, _, spread),) = numbers("variance of the weight, relative to domain 0: N  N  N\n", said)
    assert same == 1
    # Twice the features spread gives four times the weight gradients' variance, and as good as none to the bias.
    assert 3 < spread < 6
    ((covariances,),) = numbers("distance to mean of the covariances: N\n", said)
    assert covariances > distance


def test_image_folder_trains_on_a_folder_of_images(tmp_path: Path) -> None:
    """The network is made small and random, for want of pretrained weights; all else is as the example has it."""
    images(tmp_path / "data" / "hospitals", ("north", "south", "west"), ("ill", "well"))
    small = ["steps=2", "batches.size=2", "featurizer.depth=18", "featurizer.weights=random", "data.source.size=32"]
    settings = [word for setting in small for word in ("--set", setting)]
    code = "from fishr.commands import main; main()"
    example = str(EXAMPLES / "image_folder.toml")
    done = start(["-c", code, "train", example, "--data-dir", "data", "--out", "run", *settings], tmp_path)
    assert done.returncode == 0, done.stderr
    names = [score["name"] for score in json.loads((tmp_path / "run" / "result.json").read_text())["scores"]]
    assert names == ["env1_in", "env2_in", "env0_in", "env0_out", "env1_out", "env2_out"]


def test_local_weights_are_matched_by_order_and_some_stay(tmp_path: Path) -> None:
    """Random weights stand in for the package's, under other names than timm's; the images are small."""
    import timm
    import torch

    images(tmp_path / "data" / "PACS", ("art", "cartoon", "photo", "sketch"), ("cat", "dog"))
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    renamed = {f"_{name}": tensor for name, tensor in state.items() if "num_batches" not in name}
    torch.save(renamed, tmp_path / "file.pth")
    small = ["steps=2", "batches.size=2", "featurizer.weights=file.pth", "data.source.preprocessing.size=32"]
    settings = [word for setting in small for word in ("--set", setting)]
    code, example = "from fishr.commands import main; main()", str(EXAMPLES / "local_weights.toml")
    done = start(["-c", code, "train", example, "--data-dir", "data", "--out", "run", *settings], tmp_path)
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("Warning: ")]
    assert "247 tensors are matched by order" in warning
    assert "_conv_stem.weight to conv_stem.weight, …, _classifier.bias to classifier.bias" in warning
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["parameters"]
    first = {f"featurizer.0.{name}": tensor for name, tensor in state.items()}
    moved = {name for name, tensor in checkpoint.items() if name in first and not torch.equal(tensor, first[name])}
    assert {name.split(".")[2] for name in moved} == {"blocks", "conv_head", "bn2"}
    assert {name.split(".")[3] for name in moved if ".blocks." in name} == {"3", "4", "5", "6"}


@pytest.mark.filterwarnings("ignore:.*are matched by order:UserWarning")
@pytest.mark.parametrize(
    ("name", "jobs", "algorithms"),
    [("linear", 4560, ()), ("mlp", 4080, ("FishrFree", "RSC")), ("blocks", 228, ("DANN", "FishrFreeSWAD"))],
)
def test_the_plans_of_pacs_run_in_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, jobs: int, algorithms: tuple[str, ...]
) -> None:
    """Three steps of methods, after their warm-ups, on features of a network with random weights."""
    import attrs
    import timm
    import torch

    from fishr.analysis.cache_writing import cache_features, featured_experiment
    from fishr.analysis.layer_caching import cache_layer, layer_outputs
    from fishr.configuration import load
    from fishr.protocols.domainbed.job import Job, feature_experiment
    from fishr.sweeps.plan import Plan
    from fishr.training import Stepped, train

    plan = load(EXAMPLES / "pacs" / f"{name}.toml", Plan, ())
    assert len(plan.jobs()) == jobs
    assert plan.settings.preprocessing is not None
    small = attrs.evolve(
        plan.settings,
        steps=3,
        evaluate_every=2,
        preprocessing=attrs.evolve(plan.settings.preprocessing, size=32),
        hparams={key: 1 if key.endswith("_iters") else value for key, value in plan.settings.hparams.items()}
        | {"batch_size": 4},
        methods={own: attrs.evolve(mine, warm_up=1) for own, mine in plan.settings.methods.items()},
    )
    images(tmp_path / "PACS", ("art_painting", "cartoon", "photo", "sketch"), ("cat", "dog"))
    monkeypatch.chdir(tmp_path)
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    weights = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    torch.save(weights, "efficientnet-lite0-57934424.pth")
    experiment, file = feature_experiment("PACS", small), tmp_path / small.features["PACS"]
    if small.features_at is None:
        cache_features(featured_experiment(experiment, data_dir=tmp_path), file)
    else:
        cache_layer(layer_outputs(experiment, small.features_at, data_dir=tmp_path), file, "float16")
    for algorithm in algorithms or plan.algorithms:
        events = train(Job("PACS", algorithm, (0,), 0, 0, small).experiment(), tmp_path)
        records = [event.record for event in events if isinstance(event, Stepped)]
        assert len(records) == 3
        terms = records[-1].terms
        assert all(term.weight for term in terms.values()), algorithm
        assert terms or algorithm not in plan.settings.methods


def test_micro_batches_have_the_penalty_of_the_whole_batch(tmp_path: Path) -> None:
    said = output("micro_batches.py", tmp_path)
    exact, averaged = numbers(": penalty N times the whole batch's, gradients differ by N", said)
    assert exact[0] == 1
    assert exact[1] < 1e-10
    assert averaged[0] > 1.5
    assert averaged[1] > 0.1


def test_a_compiled_step_has_the_losses_of_the_plain_one(tmp_path: Path) -> None:
    done = start([str(EXAMPLES / "compiled_step.py"), "aot_eager"], tmp_path)
    assert done.returncode == 0, done.stderr
    rows = numbers("step N: loss N, compiled N", done.stdout)
    assert [step for step, _, _ in rows] == [0, 13, 26, 39]
    for _, plain, compiled in rows:
        assert compiled == pytest.approx(plain, rel=1e-4)


def test_a_sharded_featurizer_trains_as_a_whole_one_and_resumes(tmp_path: Path) -> None:
    pattern = "step 10: risk N, penalty N; from the checkpoint: N, N"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = []
    for command, folder in (([], "one"), (launch, "two")):
        done = start([*command, str(EXAMPLES / "sharded.py"), folder], tmp_path)
        assert done.returncode == 0, done.stderr
        ((risk, penalty, *again),) = numbers(pattern, done.stdout)
        assert again == [risk, penalty]
        found.append([risk, penalty])
    assert found[1] == pytest.approx(found[0], rel=1e-3)
    assert found[0][1] > 0


def test_many_processes_do_what_one_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, pattern = str(EXAMPLES / "many_processes.py"), "step N: risk N, penalty N"
    runpy.run_path(script)
    alone = numbers(pattern, capsys.readouterr().out)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    done = start([*launch, script], tmp_path)
    assert done.returncode == 0, done.stderr
    together = numbers(pattern, done.stdout)
    assert [step for step, _, _ in alone] == [0, 13, 26, 39]
    assert alone[2][2] > 0
    for one, three in zip(alone, together, strict=True):
        assert three == pytest.approx(one, rel=1e-4)


def test_domains_come_together_under_a_strong_penalty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fishr.configuration import structure
    from fishr.sweeps.execution import Conditions, attempt
    from fishr.sweeps.folder import sweep_folder
    from fishr.sweeps.plan import Plan

    digits = {"kind": "ColoredDigits", "training_images": 1500}
    own = {"environments": ["flip 0.2", "flip 0.1", "reversed", "gray"], "data": digits}
    strong = {"penalty": {"kind": "Fishr", "ema": 0.9}, "weight": 1e6, "warm_up": 5}
    settings = {
        "steps": 60,
        "data_seed": 0,
        "hparams": {"lr": 1e-2, "batch_size": 64},
        "featurizer": {"kind": "MLP", "widths": [6]},
        "own": {"Digits": own},
        "methods": {"Strong": strong},
    }
    chosen = {"datasets": ["Digits"], "algorithms": ["ERM", "Strong"], "test_envs": [[3]], "draws": 1, "trials": 1}
    plan = structure({**chosen, "keep": "weights", "settings": settings}, Plan)
    monkeypatch.chdir(tmp_path)
    with sweep_folder(Path("sweep"), plan):
        assert all(attempt(job, Conditions(Path("sweep"), keep=plan.keep)).done for job in plan.jobs())
    done = start([str(EXAMPLES / "pacs" / "distances.py"), "sweep", "--methods", "Strong"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Strong: 1 runs beside ERM's\n")
    ratios = numbers(r"(?:variances|Hessians), training domains: ratio N \(median\), lower in N", done.stdout)
    assert all(ratio < 0.5 and lower == 1 for ratio, lower in ratios)
    assert (tmp_path / "distances.png").stat().st_size > 10_000
