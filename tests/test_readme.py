"""README's Python blocks run, and its commands exist."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fishr.commands import cli

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_every_python_block_runs_as_it_is_after_the_ones_before(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 4
    names = dict[str, Any]()
    exec(blocks[0], names)
    assert names["state"].updates == names["step"] + 1 == 10
    assert names["seen"].domain_losses.shape == (2,)
    assert names["value"] > 0
    for block in blocks[1:]:
        exec(block, names)
    assert names["gap"] > 0
    assert names["found"]["variance_distance"].value > 0
    assert "numbers remembered" in capsys.readouterr().out


def test_every_command_shown_exists() -> None:
    shown = re.findall(r"^fishr (\w+)(?: (show|validate|list|download|features))?", README, re.MULTILINE)
    assert len(shown) >= 7
    for words in shown:
        done = CliRunner().invoke(cli, [*filter(None, words), "--help"])
        assert done.exit_code == 0, done.output
