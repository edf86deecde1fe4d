"""Data of one's own in every command: a plugin's format, NumPy files, lists of any columns, tables."""

import json

import datasets
import numpy as np
import pytest

MODULE = '''
"""Reads lines such as "clinic;1;0.5 0.25 0.125": the domain, the class and the inputs."""
from pathlib import Path

import torch
from attrs import frozen

from fishr.data import Domain, Environments
from fishr.errors import InputError


@frozen(eq=False)
class Lines:
    """Inputs that are parsed when a batch needs them."""

    texts: tuple[str, ...]
    dtype = torch.float32

    @property
    def shape(self):
        return torch.Size((len(self.texts), 3))

    def __len__(self):
        return len(self.texts)

    def select(self, rows):
        return Lines(tuple(self.texts[row] for row in rows))

    def plain(self):
        return self

    def to(self, device):
        return self

    def read(self, rows, seeds=None):
        return torch.tensor([[float(word) for word in self.texts[row].split()] for row in rows])

    def finish(self, read, rows, seeds=None, out=None):
        return read if out is None else out.copy_(read)


@frozen
class Series:
    file: str

    def __call__(self, seed, data_dir):
        path = (data_dir or Path("data")) / self.file
        if not path.exists():
            raise InputError(f"{path}: no such file; give lines DOMAIN;CLASS;INPUTS")
        rows = [line.split(";") for line in path.read_text().splitlines()]
        domains = [
            Domain(
                name,
                Lines(tuple(text for domain, _, text in rows if domain == name)),
                torch.tensor([int(label) for domain, label, _ in rows if domain == name]),
            )
            for name in sorted({domain for domain, _, _ in rows})
        ]
        return Environments(tuple(domains), 2, ("ill", "well"))
'''
TRAINING = """
name = "own"
steps = 4
evaluate_every = 2
checkpoint_every = 2
head.kind = "LinearHead"
loss.kind = "CrossEntropy"
objective.penalty.fishr = {kind = "Scaled", penalty = {kind = "Fishr"}, schedule = 1.0}
optimizer = {kind = "Adam", lr = 0.01}
batches = {kind = "Minibatch", size = 4}
"""
TINY = 'featurizer = {kind = "MLP", widths = [4]}\n'
PLAN = """
datasets = ["own"]
algorithms = ["ERM"]
test_envs = [[0]]
draws = 1
trials = 1
[settings]
steps = 3
featurizer = {kind = "MLP", widths = [4]}
hparams = {batch_size = 4}
"""
SERIES = 'source = {kind = "series:Series", file = "lines.txt"}'
ARRAYS = 'source = {kind = "NumPyData", path = "arrays"}'


def held_out(source):
    return f'{TRAINING}data = {{kind = "HeldOut", test = [0], {source}}}\n{TINY}'


@pytest.fixture
def own(home):
    """Return the folder with data of each kind and an experiment and a plan for each."""
    random = np.random.default_rng(0)
    data = home / "data"
    (data / "arrays").mkdir(parents=True)
    inputs, labels = random.normal(size=(24, 3)), np.arange(24) % 2
    domains = np.array(["clinic", "home", "ward"]).repeat(8)
    lines = [
        f"{domain};{label};{' '.join(map(str, row))}"
        for domain, label, row in zip(domains, labels, inputs.astype(np.float32), strict=True)
    ]
    (data / "lines.txt").write_text("\n".join(lines))
    (home / "series.py").write_text(MODULE)
    texts = np.array(["ill", "well"])[labels]
    for name, values in (("inputs", inputs.astype(np.float32)), ("labels", texts), ("domains", domains)):
        np.save(data / "arrays" / name, values)
    for name, source in (("series", SERIES), ("arrays", ARRAYS)):
        (home / f"{name}.toml").write_text(held_out(source))
        mine = f'own.own = {{environments = ["clinic", "home", "ward"], {source}}}\n'
        (home / f"{name}-plan.toml").write_text(PLAN + mine)
    return home


@pytest.mark.slow
def test_a_plugins_data_work_in_every_command_and_equal_numpys(own, call, weights):
    results = list[object]()
    for name, plugin in (("series", ("--plugin", "series")), ("arrays", ())):
        commands = [
            ("data", "info", f"{name}.toml", "--format", "json"),
            ("train", f"{name}.toml", "--out", f"run-{name}"),
            ("evaluate", f"run-{name}", "--format", "json"),
        ]
        if plugin:
            commands += [
                ("train", "--resume", f"run-{name}"),
                ("cache", "features", f"run-{name}", "-o", f"{name}.h5"),
                ("sweep", "run", f"{name}-plan.toml", "--out", f"sweep-{name}", "--workers", "1"),
            ]
        said = [call(*arguments, *plugin) for arguments in commands]
        assert [one.code for one in said] == [0] * len(said), said
        found = json.loads(said[0].out)["domains"], json.loads(said[2].out)["scores"]
        results.append((found, weights(own / f"run-{name}")))
    assert results[0] == results[1]
    assert call("sweep", "collect", "sweep-series").code == 0


def test_info_shows_the_domains_of_an_experiment(own, call):
    said = call("data", "info", "series.toml", "--plugin", "series")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "series.toml: HeldOut, inputs 3, 2 classes"
    assert lines[1].split() == ["domain", "environment", "split", "samples", "ill", "well"]
    assert lines[3].split()[:4] == ["env1_in", "home", "training", "7"]


MARKED = """
import torch

from fishr.data import Domain, Environments


def marked(labels, classes, names=None):
    return Environments(tuple(Domain(name, torch.rand(6, 3), labels) for name in "abc"), classes, names)


def soft(seed, data_dir):
    return marked(torch.full((6, 2), 0.5), 2, ("well", "ill"))


def several(seed, data_dir):
    return marked(torch.ones(6, 3), 3)


def number(seed, data_dir):
    return marked(torch.rand(6), 1)


def unlabeled(seed, data_dir):
    return marked(torch.tensor([0, 1, -1, 1, 0, -1]), 2)


def many(seed, data_dir):
    return marked(torch.arange(6) * 3, 20)
"""


@pytest.mark.parametrize(
    ("kind", "shown", "words"),
    [
        ("soft", "2 numbers a sample", 4),
        ("several", "3 numbers a sample", 4),
        ("number", "1 number a sample", 4),
        ("unlabeled", "2 classes", 6),
        ("many", "20 classes", 13),
    ],
)
def test_info_takes_labels_of_every_kind(call, home, kind, shown, words):
    (home / "marked.py").write_text(MARKED)
    (home / "marked.toml").write_text(held_out(f'source = {{kind = "marked:{kind}"}}'))
    said = call("data", "info", "marked.toml", "--plugin", "marked")
    assert (said.code, said.err) == (0, "")
    first, header, _, row, *_ = said.out.splitlines()
    assert first == f"marked.toml: HeldOut, inputs 3, {shown}"
    assert len(header.split()) == words
    assert row.split()[:4] == ["env1_in", "b", "training", "5"]


SOFT = """
import torch

from fishr.data import Domain, Environments


def mild(seed, data_dir, names=("ill", "well")):
    share = torch.arange(12.0) / 12
    labels = torch.stack([share if name == "ill" else 1 - share for name in names], 1)
    domains = (Domain(name, share[:, None].repeat(1, 3), labels) for name in "abc")
    return Environments(tuple(domains), 2, names)


def turned(seed, data_dir):
    return mild(seed, data_dir, ("well", "ill"))
"""


def test_soft_labels_are_scored_by_the_names_of_their_columns(call, home):
    (home / "soft.py").write_text(SOFT)
    for name in ("mild", "turned"):
        (home / f"{name}.toml").write_text(held_out(f'source = {{kind = "soft:{name}"}}'))
    assert call("train", "mild.toml", "--out", "run", "--plugin", "soft").code == 0
    on = [("evaluate", "run", "--on", f"{name}.toml", "--format", "json") for name in ("mild", "turned")]
    said = [call(*arguments, "--plugin", "soft") for arguments in on]
    assert [one.code for one in said] == [0, 0], said
    mild, turned = ([domain["loss"] for domain in json.loads(one.out)["domains"]] for one in said)
    assert mild == turned


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("data", "info", "series.toml"), "needs code of the module series"),
        (("data", "info", "series.toml", "--plugin", "series", "--data-dir", "none"), "none/lines.txt: no such file"),
        (
            ("cache", "images", "arrays.toml", "-o", "a.h5"),
            "arrays.toml: its data are no images, expected ImageFolders",
        ),
        (("data", "verify", "arrays.toml"), "arrays.toml: its data are no images"),
        (("train", "series.toml", "--out", "run"), "needs code of the module series"),
        (("data", "download", "hf:zoo"), "hf:zoo: no name of a hub data set, expected hf:OWNER/NAME"),
        (
            ("data", "download", "hf:a/b", "--archive", "series.py"),
            "--archive and --duplicates are for data sets of `fis",
        ),
    ],
)
def test_refusals(own, refused, arguments, part):
    refused(own, arguments, part)


IMAGES = """
featurizer = {kind = "MLP", widths = [4]}
[data]
kind = "AllEnvironments"
[data.source]
size = 8
"""
LIST = """
kind = "ImageList"
path = "animals.csv"
columns = {path = "animals/{site}/{file}", label = "y", domain = "site"}
"""
TABLE = 'kind = "HuggingFaceImages"\npath = "table"\ndomain = "domain"\n'


@pytest.fixture
def tables(animals, home, monkeypatch):
    """Return the folder with a list of any columns and a table of the same images, eight of each environment."""
    for path in sorted(animals.rglob("*.png")):
        path.with_stem(f"copy-{path.stem}").write_bytes(path.read_bytes())
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "cache")
    datasets.disable_progress_bars()
    rows = sorted(path.relative_to(animals).parts for path in animals.rglob("*.png"))
    listed = [f"{group}/{name},{group},{site}" for site, group, name in rows]
    (home / "data" / "animals.csv").write_text("\n".join(["file,y,site", *listed]))
    entries = [
        {"image": {"bytes": animals.joinpath(*parts).read_bytes(), "path": None}, "label": parts[1], "domain": parts[0]}
        for parts in rows
    ]
    features = {"image": datasets.Image(), "label": datasets.Value("string"), "domain": datasets.Value("string")}
    table = datasets.Dataset.from_list(entries, features=datasets.Features(features))
    table.to_parquet(home / "data" / "table" / "train.parquet")
    for name, source in (("list", LIST), ("table", TABLE)):
        (home / f"{name}.toml").write_text(TRAINING + IMAGES + source)
    yield home
    datasets.enable_progress_bars()


@pytest.mark.slow
def test_lists_and_tables_are_verified_cached_and_trained_on(tables, call, weights):
    runs = list[object]()
    for name in ("list", "table"):
        verified = call("data", "verify", f"{name}.toml")
        assert (verified.code, verified.err) == (0, ""), verified
        assert verified.out.endswith(f"{name}.toml: all 16 images can be read\n")
        cached = call("cache", "images", f"{name}.toml", "-o", f"data/{name}.h5")
        assert cached.out.startswith(f"data/{name}.h5: 2 environments, 2 classes, 16 images of 8 × 8 pixels")
        for out, more in (("plain", ()), ("cached", ("--set", f"data.source.cache={name}.h5"))):
            off = ("--set", "data.source.augment=false")
            said = call("train", f"{name}.toml", "--out", f"{name}-{out}", *off, *more)
            assert said.code == 0, said
            runs.append(weights(tables / f"{name}-{out}"))
    assert runs.count(runs[0]) == 4
    predicted = call("predict", "table-plain", "data/animals", "-o", "predicted.csv")
    assert predicted.code == 0, predicted


def test_a_size_together_with_a_file_is_refused(tables, refused):
    part = "--size: got it together with list.toml, which has its own preprocessing"
    refused(tables, ("cache", "images", "list.toml", "-o", "a.h5", "--size", "8"), part)


def test_a_damaged_image_of_a_table_is_named(tables, call):
    import pyarrow.parquet as parquet

    path = tables / "data" / "table" / "train.parquet"
    rows = parquet.read_table(path).to_pylist()
    rows[2]["image"]["bytes"] = b"no image"
    features = {"image": datasets.Image(), "label": datasets.Value("string"), "domain": datasets.Value("string")}
    datasets.Dataset.from_list(rows, features=datasets.Features(features)).to_parquet(path)
    said = call("data", "verify", "table.toml")
    assert said.code == 2
    assert said.out == "data/table/train/2\n"
    assert "1 of 16 images cannot be read: data/table/train/2 (not an image)" in said.err


@pytest.mark.slow
def test_a_sweep_on_images_of_a_source(tables, call, forked):
    for name, source in (("list", LIST), ("table", TABLE)):
        plan = (
            PLAN + f'[settings.own.own]\nenvironments = ["photo", "art"]\n[settings.own.own.source]\nsize = 8\n{source}'
        )
        (tables / "plan.toml").write_text(plan)
        said = call("sweep", "run", "plan.toml", "--out", f"sweep-{name}", "--workers", "1")
        assert said.code == 0, said
        (configuration,) = (tables / f"sweep-{name}" / "jobs").glob("*/config.toml")
        assert 'environments = [\n    "photo",\n    "art",\n]' in configuration.read_text()
