"""What README shows is true: its Python runs, its commands exist."""

import re
from pathlib import Path

import torch
from click.testing import CliRunner

import fishr
from fishr.commands import cli

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_every_python_block_runs_after_the_ones_before(capsys) -> None:
    featurizer, head = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU()), torch.nn.Linear(6, 2)
    sizes = (32, 32, 40)
    inputs, labels = torch.randn(104, 4), torch.randint(2, (104,))
    names = {
        "torch": torch,
        "featurizer": featurizer,
        "head": head,
        "optimizer": torch.optim.Adam([*featurizer.parameters(), *head.parameters()]),
        "batches": [fishr.DomainBatch(inputs, labels, sizes)] * 3,
        "features": torch.randn(104, 6),
        "labels": labels,
    }
    before = head.weight.detach().clone()
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    assert not torch.equal(head.weight, before)
    assert names["state"].updates == 3
    assert names["gap"] > 0
    assert names["found"]["variance_distance"].value > 0
    assert "numbers remembered" in capsys.readouterr().out


def test_every_command_shown_exists() -> None:
    shown = re.findall(r"^fishr (\w+)(?: (show|validate|list|download|features))?", README, re.MULTILINE)
    assert len(shown) >= 7
    for words in shown:
        done = CliRunner().invoke(cli, [*filter(None, words), "--help"])
        assert done.exit_code == 0, done.output
