"""The page on loops of one's own: its blocks run one after the other, and its examples and links exist."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "own-loops.md").read_text()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process group of this process alone, in an empty folder; the compiler only traces."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_every_block_runs_after_the_ones_before() -> None:
    first, *others = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(others) >= 7
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(first, names)
    assert names["state"].updates == 10
    assert names["value"] > 0
    for number, block in enumerate(others):
        before = names["state"]
        try:
            exec(block, names)
        except Exception as error:
            raise AssertionError(f"block {number + 2}:\n{block}") from error
        if "fishr.load_state(penalty, problem, saved" in block:
            assert torch.equal(before.value, names["state"].value)
    assert names["matched"].step == 1


def test_examples_and_sections_that_it_names_exist() -> None:
    examples = set(re.findall(r"`(?:examples/)?(\w+\.py)`", PAGE))
    assert len(examples) >= 10
    for example in examples:
        assert (ROOT / "examples" / example).is_file(), example
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\(#([\w-]+)\)", PAGE)) <= sections
    for page in re.findall(r"\(([\w-]+\.md)\)", PAGE):
        assert (ROOT / "docs" / page).is_file(), page
