"""docs/your-own-data.md: each TOML block is read as it is, and the class of one's own reads its file."""

import re
import tomllib
from pathlib import Path

import pytest
import torch

from fishr.configuration import structure, unstructure
from fishr.protocols import colored_digits
from fishr.sweeps.plan import Plan
from fishr.training import Experiment

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "your-own-data.md").read_text()
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
EXPERIMENTS = [block for block in BLOCKS if block.startswith("[data]")]


@pytest.fixture
def sensors(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "sensors.py").write_text(code)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", EXPERIMENTS)
def test_a_block_is_the_data_of_an_experiment(sensors, block):
    table = {**unstructure(colored_digits()), **tomllib.loads(block)}
    experiment = structure(table, Experiment, plugins=("sensors",))
    assert structure(unstructure(experiment), Experiment, plugins=("sensors",)) == experiment


def test_a_class_of_ones_own_reads_its_file(sensors, tmp_path):
    samples = {name: (torch.zeros(8, 2), torch.arange(8) % 2) for name in ("north", "south")}
    (block,) = (one for one in EXPERIMENTS if "sensors" in one)
    table = {**unstructure(colored_digits()), **tomllib.loads(block)}
    data = structure(table, Experiment, plugins=("sensors",)).data
    torch.save(samples, tmp_path / "june.pt")
    assert [domain.name for domain in data(0, tmp_path).training] == ["env1_in"]


def test_the_block_of_a_sweep_is_a_part_of_a_plan():
    (block,) = (one for one in BLOCKS if one not in EXPERIMENTS)
    plan = structure({"datasets": ["scans"], "algorithms": ["ERM"], **tomllib.loads(block)}, Plan)
    assert plan.jobs()[0].experiment().data.source.environments == ("north", "south", "west")


def test_there_is_one_block_for_each_kind_and_one_for_patients():
    assert len(EXPERIMENTS) == 8
