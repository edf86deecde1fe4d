"""Input that cannot be used: one line on stderr, exit code 2, nothing created and nothing changed."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from fishr.configuration import dumps
from fishr.protocols import colored_digits


@pytest.fixture(scope="module")
def world(tmp_path_factory, finished_once):
    """A folder with everything that can be wrong, each thing under its own name."""
    home = tmp_path_factory.mktemp("world")
    _configurations(home)
    _runs(home, finished_once)
    (home / "broken_plugin.py").write_text("import no_such_module_at_all\n")
    (home / "other_plugin.py").write_text("def another(seen):\n    return seen.losses.mean()\n")
    return home


def _configurations(home):
    text = dumps(colored_digits())
    files = {
        "syntax.toml": text.replace("steps = 240", "steps = = 240"),
        "unknown-key.toml": f"learning_rate = 0.1\n{text}",
        "types.toml": text.replace("seed = 0", 'seed = "0"').replace("rescale = true", "rescale = 1"),
        "kind.toml": text.replace('"ColoredDigits"', '"ColouredDigits"'),
        "missing.toml": text.split("[objective]")[0],
        "nan.toml": text.replace("l2 = 0.00110794568", "l2 = nan"),
        "twice.toml": f"steps = 3\n{text}",
        "empty.toml": "",
        "plan.toml": 'datasets = ["PACS"]\nalgorithms = ["ERM"]\ntest_envs = "single"\n',
    }
    for name, content in files.items():
        (home / name).write_text(content)
    (home / "latin.toml").write_bytes(text.replace("colored-digits", "café").encode("latin-1"))
    (home / "directory.toml").mkdir()


def _fail(folder):
    (folder / "checkpoint.pt").unlink()
    (folder / "result.json").write_text(json.dumps({"status": "failed", "message": "step 2: risk is nan"}))


def _runs(home, finished):
    def changed(name, change, unfinished=True):
        folder = Path(shutil.copytree(finished, home / name))
        if unfinished:
            (folder / "result.json").unlink()
        change(folder)

    checkpoint = (finished / "checkpoint.pt").read_bytes()
    changed("finished", lambda folder: None, unfinished=False)
    changed("failed", _fail, unfinished=False)
    changed("corrupt-config", lambda folder: (folder / "config.toml").write_bytes(b"steps = \x00"))
    changed("cut-config", lambda folder: (folder / "config.toml").write_text('name = "colored-digits"\n'))
    changed("cut-checkpoint", lambda folder: (folder / "checkpoint.pt").write_bytes(checkpoint[:-2000]))
    changed("empty-checkpoint", lambda folder: (folder / "checkpoint.pt").write_bytes(b""))
    changed("others-checkpoint", lambda folder: torch.save({"epoch": 3}, folder / "checkpoint.pt"))
    changed("code-checkpoint", lambda folder: torch.save(_Code(), folder / "checkpoint.pt"))
    changed("wider", lambda folder: _reshape(folder))
    changed("no-metrics", lambda folder: (folder / "metrics.jsonl").unlink())
    changed("foreign-metrics", lambda folder: (folder / "metrics.jsonl").write_bytes(b"\xff{}\n"), unfinished=False)
    changed("empty-metrics", lambda folder: (folder / "metrics.jsonl").write_bytes(b""), unfinished=False)
    changed("cut-metrics", lambda folder: (folder / "metrics.jsonl").write_bytes(b"{}\n"))
    changed("no-result", lambda folder: (folder / "result.json").write_text("[3]"), unfinished=False)
    changed("no-checkpoint", lambda folder: (folder / "checkpoint.pt").unlink(), unfinished=False)
    (home / "notes").mkdir()
    (home / "notes" / "mine.txt").write_text("not a run")


class _Code:
    """Unpickled by a careless reader, it leaves a file behind."""

    def __reduce__(self):
        return os.mkdir, ("code-ran",)


def _reshape(folder):
    """The checkpoint of a wider network, as a resume with another featurizer would find it."""
    tree = torch.load(folder / "checkpoint.pt", weights_only=True)
    tree["parameters"]["head.weight"] = torch.zeros(1, 9)
    torch.save(tree, folder / "checkpoint.pt")


def _train(*options):
    return ["train", *options, "--out", "new"]


def _set(text, *recipe):
    return _train(*recipe, "--set", text)


NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
PLUGIN = "objective.penalty.fishr.penalty={kind='NAME:mine'}"

# What is asked for, and what the line says.
REFUSED = {
    "no such command": (["trian"], "No such command 'trian'. Did you mean 'train'?"),
    "no such option": (_train("--sed", "3"), "No such option"),
    "unknown recipe": (_train("colored-digitz"), "neither a recipe nor a file; did you mean colored-digits?"),
    "missing file": (_train("none.toml"), "none.toml: no such file"),
    "a directory": (_train("directory.toml"), "this is a directory, expected a TOML file"),
    "syntax": (_train("syntax.toml"), "syntax.toml: line 2, column 9: this is no TOML"),
    "key twice": (_train("twice.toml"), "twice.toml: line 3, column 12: this is no TOML"),
    "not UTF-8": (_train("latin.toml"), "latin.toml: line 1: this is not UTF-8 text"),
    "empty file": (_train("empty.toml"), "data: missing, expected a table"),
    "unknown key": (_train("unknown-key.toml"), "unknown-key.toml: learning_rate: unknown key"),
    "wrong types": (_train("types.toml"), 'seed: got "0" (a string), expected a whole number'),
    "unknown kind": (_train("kind.toml"), 'data.kind: got "ColouredDigits" (a string), expected one of'),
    "missing tables": (_train("missing.toml"), "objective: missing"),
    "not a number": (_train("nan.toml"), "objective.l2: got nan"),
    "validated too": (["config", "validate", "types.toml"], "objective.rescale: got 1"),
    "negative steps": (_set("steps=-5"), "steps: got -5, expected a whole number of at least 1"),
    "huge seed": (_train("--seed", str(2**70)), "Invalid value for '--seed'"),
    "negative seed": (_train("--seed", "-1"), "Invalid value for '--seed'"),
    "set without =": (_set("steps"), 'the override "steps" has no =, expected KEY=VALUE'),
    "set without key": (_set("=3"), 'the override "=3" has no proper key'),
    "set without value": (_set("steps="), "steps: the override has no value"),
    "set below a scalar": (_set("steps.many=3"), "steps: got 240 (a whole number), which has no many"),
    "set of half a list": (_set("featurizer.widths=[3,"), "starts like a TOML value and is none"),
    "set of another type": (_set("steps=12.0"), "steps: got 12.0 (a decimal number), expected a whole number"),
    "set of an unknown key": (_set("optimiser.lr=1"), 'optimiser: unknown key; did you mean "optimizer"?'),
    "existing --out": (["train", "--out", "finished"], "finished: exists already; resume it with --resume finished"),
    "--out of others' folder": (["train", "--out", "notes"], "notes: exists already; choose another name"),
    "--out is a file": (["train", "--out", "syntax.toml"], "syntax.toml: exists already"),
    "--out below a file": (["train", "--out", "syntax.toml/new"], "could not be made (File exists)"),
    "resume of nothing": (["train", "--resume", "none"], "none: not a run folder, it has no config.toml"),
    "resume of a foreign folder": (["train", "--resume", "notes"], "notes: not a run folder"),
    "resume, corrupt config": (["train", "--resume", "corrupt-config"], "corrupt-config/config.toml: line 1"),
    "resume, config cut short": (["train", "--resume", "cut-config"], "cut-config/config.toml: data: missing"),
    "resume, checkpoint cut short": (
        ["train", "--resume", "cut-checkpoint"],
        "not a readable checkpoint (damaged, cut",
    ),
    "resume, empty checkpoint": (["train", "--resume", "empty-checkpoint"], "not a readable checkpoint"),
    "resume, another program's": (["train", "--resume", "others-checkpoint"], "not a checkpoint of fishr"),
    "resume, code in checkpoint": (["train", "--resume", "code-checkpoint"], "not a readable checkpoint"),
    "resume, other weights": (["train", "--resume", "wider"], "head.weight: got"),
    "resume, no metrics": (["train", "--resume", "no-metrics"], "metrics.jsonl: has 0 bytes, expected at least"),
    "resume, metrics cut short": (["train", "--resume", "cut-metrics"], "metrics.jsonl: has 3 bytes"),
    "finished, foreign metrics": (["train", "--resume", "foreign-metrics"], "metrics.jsonl: not what fishr wrote"),
    "finished, empty metrics": (["train", "--resume", "empty-metrics"], "metrics.jsonl: got no evaluation of a fin"),
    "resume, foreign result": (["train", "--resume", "no-result"], "not a result that fishr wrote"),
    "resume, finished without weights": (
        ["train", "--resume", "no-checkpoint"],
        "no checkpoint.pt, though its run",
    ),
    "evaluate nothing": (["evaluate", "none"], "none: not a run folder"),
    "evaluate, no checkpoint": (
        ["evaluate", "no-checkpoint"],
        "no-checkpoint: no checkpoint.pt, though",
    ),
    "evaluate, failed early": (
        ["evaluate", "failed"],
        "failed: no checkpoint.pt, and its run failed (step 2: risk is nan); train",
    ),
    "evaluate, cut short": (["evaluate", "cut-checkpoint"], "not a readable checkpoint (damaged, cut"),
    "evaluate, code": (["evaluate", "code-checkpoint"], "not a readable checkpoint"),
    "evaluate, other weights": (["evaluate", "wider"], "head.weight: got"),
    "one training domain": (_set("data.flips=[0.2]"), "fishr: got 1 training domain, expected at least 2"),
    "no half batches": (
        _train(
            *("colored-digits-irm", "--set", "objective.penalty.irm.penalty.form=half_batches"),
            *("--set", "batches={kind='Minibatch', size=1}"),
        ),
        "IRM: got domains of (1, 1) samples, expected at least 2 in each for half batches",
    ),
    "no such device": (_train("--device", "tpu"), "device: got 'tpu', expected auto"),
    "a plan as a run": (
        _train("plan.toml"),
        'plan.toml: got "datasets", "algorithms", "test_envs", which are the keys of something else; Experiment takes',
    ),
    "plugin not named": (_set(PLUGIN.replace("NAME", "other_plugin")), "a file alone never runs code"),
    "plugin fails": (
        _set(PLUGIN.replace("NAME", "broken_plugin"), "--plugin", "broken_plugin"),
        "the plugin broken_plugin could not be imported: ModuleNotFoundError: No module named 'no_such_module_at_all'",
    ),
    "plugin is nowhere": (_set(PLUGIN.replace("NAME", "nowhere_"), "--plugin", "nowhere_"), "could not be imported"),
    "plugin lacks the name": (
        _set(PLUGIN.replace("NAME", "other_plugin"), "--plugin", "other_plugin"),
        "the module other_plugin has no mine",
    ),
    "no such table": (["reproduce", "office"], "office: got no such table, expected one of colored-digits"),
    "no such method": (
        ["reproduce", "colored-digits", "--methods", "erm,dann"],
        "method: got 'dann', expected some of",
    ),
    "no restarts": (["reproduce", "colored-digits", "--restarts", "0"], "Invalid value for '--restarts'"),
    "negative step": (["explain", "--step", "-1"], "Invalid value for '--step'"),
    "no such data": (["data", "download", "imagenet"], "imagenet: no data set of that name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refused, world, name):
    refused(world, *REFUSED[name])


@NO_CUDA
def test_cuda_without_cuda(refused, world):
    refused(world, _train("--device", "cuda"), "device: got 'cuda', expected auto or cpu: no GPU was found")


def test_all_problems_of_a_file(refused, world):
    both = (
        "types.toml: objective.rescale: got 1 (a whole number), expected true or false; "
        'seed: got "0" (a string), expected a whole number'
    )
    refused(world, _train("types.toml"), both)


def test_an_unwritable_folder(refused, home, unprivileged):
    (home / "closed").mkdir(mode=0o500)
    message = "Error: closed/run: cannot be written there (Permission denied); choose another place\n"
    refused(home, ["train", "--out", "closed/run"], message)


def test_the_table_is_long_enough():
    """Twenty are promised."""
    assert len(REFUSED) >= 20
