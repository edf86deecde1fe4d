"""What people get wrong with a loop or a run: one line that says what was got, what was expected and what to do."""

import re
import shutil

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import fishr
from fishr import DomainBatch, InputError

HEAD, INPUTS, LABELS = nn.Linear(3, 2), torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])
PENALTY = fishr.Fishr(ema=0.9)
PROBLEM = fishr.Problem.of(HEAD, domains=2)
SAVED = fishr.state_dict(PENALTY.init(PROBLEM))


def seen(labels=LABELS, sizes=(2, 4), **options):
    return fishr.observe(nn.Identity(), HEAD, DomainBatch(INPUTS, labels, sizes), **options)


def alone(seen, state, step):
    return seen.losses.mean()


def outcome(call):
    """Return a penalty without memory that is called as a function."""
    return type("Own", (), {"init": lambda self, problem: (), "__call__": lambda self, *arguments: call(*arguments)})()


def step(state=None, **options):
    return PENALTY(seen(**options), state or PENALTY.init(PROBLEM), step=0)


LIBRARY = {
    "domains that count from 1": (
        lambda: DomainBatch.of(INPUTS, LABELS, domains=[1, 2, 3, 1, 2, 3], number=3),
        "domains: got 1 to 3, expected 0 to 2 for number=3; number the domains from 0",
    ),
    "names of domains": (
        lambda: DomainBatch.of(INPUTS, LABELS, domains=["art", "photo"] * 3),
        "domains: got a builtins.list .*, expected the whole number of each sample's domain; number the domains from 0",
    ),
    "a domain for each batch": (
        lambda: DomainBatch.of(INPUTS, LABELS, domains=[0]),
        r"domains: got shape \(1,\) .*, expected \(6,\) whole numbers, the domain of each sample; number the domains",
    ),
    "sizes of another batch": (
        lambda: DomainBatch(INPUTS, LABELS, sizes=(32, 32)),
        r"sizes: got \(32, 32\), which sum to 64, expected the 6 rows of the batch; count the samples of each domain",
    ),
    "labels of another batch": (
        lambda: DomainBatch(INPUTS, LABELS[:5], sizes=(2, 3)),
        "labels: got 5 rows, expected 6 as in the inputs; give those of the same samples",
    ),
    "a penalty on one domain": (
        lambda: PENALTY.init(fishr.Problem.of(HEAD, domains=1)),
        "Fishr: got 1 training domain, expected at least 2 to compare; train on more domains, or without the penalty",
    ),
    "a batch of one domain": (
        lambda: step(sizes=(6, 0)),
        "Fishr: got a batch with samples of 1 of 2 domains, expected at least 2 .*; draw samples of more domains",
    ),
    "a batch of more domains": (
        lambda: step(sizes=(2, 2, 2)),
        r"moving average: got a statistic of shape \(3, 8\), expected \(2, 8\) .*; the head and the number of domains",
    ),
    "no state": (
        lambda: PENALTY(seen(), None, step=0),
        r"Fishr: got None as its state, expected that of this penalty; begin with state = penalty\.init",
    ),
    "a state of no average": (
        lambda: PENALTY(seen(), fishr.Fishr().init(PROBLEM), step=0),
        r"Fishr: got a builtins\.tuple as its state, expected that of this penalty; begin with state = penalty\.init",
    ),
    "a state of an average": (
        lambda: fishr.Fishr()(seen(), PENALTY.init(PROBLEM), step=0),
        r"Fishr: got a fishr\..*Average as its state, expected that of this penalty; begin with state = penalty\.init",
    ),
    "a checkpoint of another head": (
        lambda: fishr.load_state(PENALTY, fishr.Problem.of(nn.Linear(4, 2), domains=2), SAVED),
        r"state\.value: got a tensor of shape \(2, 8\) .*, expected a tensor of shape \(2, 10\) .*; load it by the",
    ),
    "a checkpoint of another penalty": (
        lambda: fishr.load_state(fishr.IRM(), PROBLEM, SAVED),
        "state: got the entries value, updates, missed .*, expected .*; load it by the penalty and the problem",
    ),
    "the whole checkpoint": (
        lambda: fishr.load_state(PENALTY, PROBLEM, {"model": HEAD.state_dict(), "penalty": SAVED}),
        r"saved state: got the entries model, penalty, expected what fishr\.state_dict returned; give that part",
    ),
    "a state with a graph": (
        lambda: fishr.state_dict({"mean": HEAD.weight * 2}),
        r"state mean: got a tensor that holds a graph, expected none; return the state detached \(tensor\.detach\(\)\)",
    ),
    "labels that count from 1": (
        lambda: step(labels=LABELS + 1),
        "cross-entropy: got labels from 1 to 2, expected whole numbers from 0 to 1, .*; if they start at 1, subtract 1",
    ),
    "labels of another type": (
        lambda: step(labels=LABELS.int()),
        r"cross-entropy: got labels of shape \(6,\) and type torch\.int32, .*; use labels\.long\(\)",
    ),
    "one-hot labels": (
        lambda: step(labels=nn.functional.one_hot(LABELS)),
        r"cross-entropy: got labels of shape \(6, 2\) and type torch\.int64, .*; use labels\.float\(\) if each row",
    ),
    "labels in a column": (
        lambda: step(labels=LABELS[:, None]),
        r"cross-entropy: got labels of shape \(6, 1\) .*; use labels\.flatten\(\)",
    ),
    "a value without the state": (
        lambda: fishr.Total(mine=outcome(alone))(seen(), {"mine": ()}, step=0),
        r"Own: got a torch\.Tensor from its call, expected a tensor of one number and the next state; return value, st",
    ),
    "a number for a tensor": (
        lambda: fishr.Scaled(outcome(lambda seen, state, step: (0.5, state)), 2.0)(seen(), (), step=0),
        r"Own: got a builtins\.float as the value from its call, expected a tensor of one number and the next state",
    ),
    "a function of no tensor": (
        lambda: fishr.Total(mine=fishr.Stateless(lambda seen: 0.5))(seen(), {"mine": ()}, step=0),
        r"Stateless: got a builtins\.float as the value from its call, expected a tensor of one number",
    ),
    "a weight in words": (
        lambda: fishr.Scaled(PENALTY, "10"),
        "schedule: got '10', expected a finite number, or a function of the step",
    ),
    "a weight that is no number": (
        lambda: fishr.Scaled(PENALTY, float("nan")),
        "schedule: got nan, expected a finite number, or a function of the step",
    ),
    "a decay in words": (
        lambda: fishr.Fishr(ema="0.9"),
        r"ema: got '0\.9', expected a number of at least 0\.0 and less than 1\.0",
    ),
    "a problem of no domain": (
        lambda: fishr.Problem.of(HEAD, domains=0),
        "domains: got 0, expected the number of training domains",
    ),
    "the names of the domains": (
        lambda: fishr.Problem.of(HEAD, domains=("art", "photo")),
        r"domains: got \('art', 'photo'\), expected the number of training domains",
    ),
    "a module of a function": (
        lambda: fishr.PenaltyModule(lambda seen: seen.losses.mean()),
        r"penalty: got <function .*, expected a penalty \(with init and a call\); wrap a function in Stateless",
    ),
    "a module called with a loss": (
        lambda: fishr.PenaltyModule(PENALTY)(torch.zeros(())),
        r"penalty module: got a torch\.Tensor, expected an observation; call it with fishr\.observe\(featurizer, head",
    ),
    "features of another width": (
        lambda: PENALTY(seen(features=torch.zeros(6, 5)), PENALTY.init(PROBLEM), step=0),
        r"features: got shape \(6, 5\), expected \[N, 3\] for the head, a Linear; flatten or pool the features to this",
    ),
    "moments of a feature map": (
        lambda: fishr.gradient_moments(nn.Sequential(HEAD, nn.ReLU()), torch.zeros(6, 3, 2, 2), LABELS, (2, 4)),
        r"features: got shape \(6, 3, 2, 2\), expected \[N, 3\] for the head, a Sequential; flatten or pool",
    ),
    "whole numbers as features": (
        lambda: fishr.gradient_gram(HEAD, torch.zeros(6, 3, dtype=torch.int64), LABELS),
        r"features: got shape \(6, 3\) and type torch\.int64, expected floating point for the head, a Linear; use",
    ),
    "the mean of the losses": (
        lambda: step(loss=nn.CrossEntropyLoss()),
        r"loss: got shape \(\) from CrossEntropyLoss, expected \(6,\), one number a sample; use .*reduction=\"none\"",
    ),
    "one loader of all domains": (
        lambda: next(fishr.batches(DataLoader(LABELS))),
        "batches: got a .*DataLoader, expected a list or dict of loaders, one for each domain",
    ),
    "no loaders": (
        lambda: next(fishr.batches([])),
        r"batches: got a builtins\.list of none, expected a list or dict of loaders, one for each domain",
    ),
    "a function to explain": (
        lambda: fishr.explain(lambda seen: seen.losses.mean()),
        r"explain: got <function .*, expected a penalty \(with init and a call\); wrap a function in Stateless",
    ),
    "a loader that has ended": (
        lambda: next(fishr.batches({"art": iter(()), "photo": [(INPUTS, LABELS)]})),
        "loader art: got no batch, expected at least one in every pass; give a DataLoader, not an iterator",
    ),
    "featurizer and head swapped": (
        lambda: fishr.observe(HEAD, lambda inputs: inputs, DomainBatch(INPUTS, LABELS, (2, 4))),
        r"head: got a function, expected a Module; call observe\(featurizer, head, batch\)",
    ),
    "a pair for a batch": (
        lambda: fishr.observe(nn.Identity(), HEAD, (INPUTS, LABELS)),
        r"batch: got a tuple, expected a DomainBatch; make one by DomainBatch\.of\(inputs, labels, domains\)",
    ),
    "a layer that is not there": (
        lambda: fishr.Problem.of(HEAD, domains=2, layers=("fc",)),
        "layers: got 'fc', which no trainable parameter of Linear has .*; expected the name of a layer .* 'weight'",
    ),
    "a model of no run": (
        lambda: fishr.load_model("none"),
        r"none: not a run folder, it has no config\.toml; give the folder that train made",
    ),
}

# The folder has a finished run, the same without a checkpoint, a file of weights and a few words.
COMMANDS = {
    "predict without a checkpoint": (
        ["predict", "no-checkpoint", ".", "-o", "p.csv"],
        "no-checkpoint: no checkpoint.pt, though its run has ended",
    ),
    "predict by a model of no images": (
        ["predict", "finished", ".", "-o", "p.csv"],
        "its data were no images in files, so the preprocessing of one is not known; call the model of",
    ),
    "predictions over a file": (
        ["predict", "finished", ".", "-o", "words.txt", "--as", "csv"],
        "words.txt: exists already; choose another name",
    ),
    "export over a file": (["export", "finished", "-o", "w.pt"], "w.pt: exists already; choose another name"),
    "export without a checkpoint": (["export", "no-checkpoint", "-o", "new.pt"], "no-checkpoint: no checkpoint.pt"),
    "export of no run": (["export", "none", "-o", "new.pt"], "none: not a run folder, it has no config.toml; give"),
    "export in a form that the name does not tell": (
        ["export", "finished", "-o", "w.onnx"],
        "w.onnx: got a name that ends in none of .safetensors, .pt, .pth, .pt2; rename it, or add --as safetensors",
    ),
    "a report for print": (
        ["report", "finished", "-o", "r.pdf"],
        "r.pdf: got a name that ends in .pdf, expected .html or .htm, since the file is HTML",
    ),
    "scores as a table": (
        ["evaluate", "finished", "-o", "s.csv"],
        "s.csv: got a name that ends in .csv, expected .json, since the file is JSON",
    ),
    **{
        f"{' '.join(command)} of another format": (
            [*command, "finished", "-o", "f.npz"],
            "f.npz: got a name that ends in .npz, expected .h5 or .hdf5, since the file is HDF5",
        )
        for command in (
            ("analyze",),
            ("landscape",),
            ("cache", "features"),
            ("cache", "gradients"),
            ("cache", "images"),
            ("sweep", "features"),
        )
    },
    "evaluate on nothing": (
        ["evaluate", "finished", "--on", "none"],
        "none: neither a file or folder, nor a domain of finished; give a path, or one of flip 0.2",
    ),
    "an unknown key": (
        ["train", "--set", "optimizer.learning_rate=0.1", "--out", "new"],
        'optimizer.learning_rate: unknown key, Adam takes "lr", "betas"',
    ),
    "an unknown optimizer": (
        ["train", "--set", "optimizer={kind='Adamw', lr=0.1}", "--out", "new"],
        'optimizer.kind: got "Adamw" (a string), expected one of',
    ),
    "train over a run": (["train", "--out", "finished"], "finished: exists already; resume it with --resume finished"),
    "another algorithm": (
        ["train", "--benchmark", "PACS", "--algorithm", "Fishy", "--test-env", "0", "--out", "new"],
        "VREx; did you mean Fish? Or describe one of your own under settings.methods",
    ),
    "a benchmark without test environment": (
        ["train", "--benchmark", "PACS", "--algorithm", "Fishr", "--out", "new"],
        "--test-env: got none, expected one or more of 0 (A), 1 (C), 2 (P), 3 (S)",
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, finished_once):
    home = tmp_path_factory.mktemp("world")
    shutil.copytree(finished_once, home / "finished")
    shutil.copytree(finished_once, home / "no-checkpoint")
    (home / "no-checkpoint" / "checkpoint.pt").unlink()
    (home / "words.txt").write_text("words")
    torch.save({}, home / "w.pt")
    return home


@pytest.mark.parametrize("name", [*LIBRARY, *COMMANDS])
def test_a_wrong_use_is_one_line(name, refused, world):
    if name in COMMANDS:
        refused(world, *COMMANDS[name])
        return
    use, line = LIBRARY[name]
    with pytest.raises(InputError) as raised:
        use()
    assert re.match(line, str(raised.value)), raised.value
    assert "\n" not in str(raised.value)
    assert "expected" in str(raised.value) or name == "a model of no run"


def test_the_table_is_long_enough():
    """Twenty are promised."""
    assert len(LIBRARY) >= 20
