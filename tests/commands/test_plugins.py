"""Penalties in the user's own file: a function, a frozen class; a file alone never runs code."""

import itertools
import tomllib

import pytest
import tomli_w
import torch

pytestmark = pytest.mark.slow

SOURCE = '''
from pathlib import Path
import torch
from attrs import frozen

Path("imported").touch()


def spread(seen):
    """Variance of the domains' losses."""
    return seen.domain_losses.var(correction=0)


@frozen
class Remembering:
    """Distance to an average of earlier losses."""

    decay: float = 0.5

    def init(self, problem):
        return torch.zeros(problem.domains)

    def __call__(self, seen, state, step):
        losses = seen.domain_losses
        state = self.decay * state + (1 - self.decay) * losses.detach()
        return (losses - state).square().mean(), state
'''
FUNCTION = ["--set", "objective.penalty.mine={kind='Scaled', schedule=2.0, penalty={kind='MODULE:spread'}}"]
CLASS = [
    "--set",
    "objective.penalty.mine={kind='Scaled', schedule=2.0, penalty={kind='MODULE:Remembering', decay=0.9}}",
]
_names = (f"my_penalty_{i}" for i in itertools.count())


@pytest.fixture
def module(home):
    """A module in the working directory; a new name each time, since imports last as long as the process."""
    name = next(_names)
    (home / f"{name}.py").write_text(SOURCE)
    return name


def _of(module, options):
    return [option.replace("MODULE", module) for option in options]


@pytest.mark.parametrize("options", [FUNCTION, CLASS])
def test_train_resume_evaluate(call, home, short, weights, cut_short, module, options):
    options = ("colored-digits-erm", *short, *_of(module, options))
    assert call("train", *options, "--plugin", module, "--out", "whole").code == 0
    penalty = tomllib.loads((home / "whole" / "config.toml").read_text())["objective"]["penalty"]["mine"]["penalty"]
    assert penalty["kind"].startswith(f"{module}:")

    cut_short(call, "train", *options, "--plugin", module, "--out", "run")
    without = call("train", "--resume", "run")
    assert without.code == 2
    assert f"a file alone never runs code; if you trust it, pass --plugin {module}" in without.err
    assert call("evaluate", "run").code == 2
    assert call("evaluate", "run", "--plugin", module).code == 0
    assert call("train", "--resume", "run", "--plugin", module).code == 0
    assert weights(home / "run") == weights(home / "whole")
    assert (home / "run" / "metrics.jsonl").read_bytes() == (home / "whole" / "metrics.jsonl").read_bytes()


@pytest.fixture
def cut_short(monkeypatch):
    """Call a command whose process dies after three steps."""

    class Died(BaseException):
        pass

    def calling(call, *arguments):
        from fishr.training import loop

        steps = itertools.count()

        def dying(*given):
            if next(steps) == 3:
                raise Died
            return advance(*given)

        advance = loop.advance
        with monkeypatch.context() as patched:
            patched.setattr(loop, "advance", dying)
            with pytest.raises(Died):
                call(*arguments)

    return calling


def test_the_module_counts(call, home, short, weights, module):
    """With the penalty the weights are others than without it."""
    options = ("colored-digits-erm", *short)
    assert call("train", *options, "--out", "plain").code == 0
    assert call("train", *options, *_of(module, FUNCTION), "--plugin", module, "--out", "mine").code == 0
    assert weights(home / "plain") != weights(home / "mine")
    state = torch.load(home / "mine" / "checkpoint.pt", weights_only=True)["penalty"]
    assert list(state) == ["mine"]


def test_a_file_alone_runs_no_code(call, home, module):
    shown = call("config", "show", *_of(module, CLASS), "--plugin", module)
    assert shown.code == 0
    assert (home / "imported").exists()
    (home / "imported").unlink()
    (home / "theirs.toml").write_text(shown.out.replace(module, f"{module}x"))
    (home / f"{module}x.py").write_text(SOURCE)
    for command in (("train",), ("explain",), ("config", "show"), ("config", "validate")):
        said = call(*command, "theirs.toml")
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert f"pass --plugin {module}x" in said.err
    assert not (home / "imported").exists()
    assert not (home / "runs").exists()


def test_explain_reads_what_the_function_reads(call, module):
    said = call("explain", "colored-digits-erm", *_of(module, FUNCTION), "--plugin", module)
    assert said.code == 0
    assert said.out.splitlines()[-1].split() == ["mine", "2", "domain_losses", "yes", "none"]


DATA = """
from pathlib import Path
from fishr.data import HeldOut
from fishr.data.images import ImageFolders


def animals(seed, data_dir):
    Path("imported").touch()
    source = ImageFolders(str(Path("photos").absolute()), size=32, augment=False)
    return HeldOut(source, (0,), holdout_fraction=0.5)(seed, data_dir)
"""


def test_what_reads_no_data_needs_no_plugin_of_data(call, home, moved, module):
    (home / f"{module}.py").write_text(DATA)
    settings = tomllib.loads((home / "run.toml").read_text()) | {"data": {"kind": f"{module}:animals"}}
    (home / "run.toml").write_text(tomli_w.dumps(settings))
    assert (said := call("train", "run.toml", "--plugin", module, "--out", "mine")).code == 0, said.err
    (home / "imported").unlink()
    for arguments in (
        ("predict", "mine", "photos", "-o", "classes.csv"),
        ("export", "mine", "-o", "model.pt"),
        ("evaluate", "mine", "--on", "photos"),
        ("report", "mine"),
    ):
        assert (said := call(*arguments)).code == 0, said.err
    assert not (home / "imported").exists()
    page = (home / "mine" / "report.html").read_text()
    assert f"{module}:animals" in page
    assert f"pass --plugin {module}" in page, "the page says why class counts are not shown"
    for arguments in (("evaluate", "mine"), ("analyze", "mine"), ("train", "--resume", "mine")):
        said = call(*arguments)
        assert (said.code, said.out) == (2, ""), said
        assert f"if you trust it, pass --plugin {module}" in said.err
    # Any other part is needed to build the model.
    (home / "mine" / "config.toml").write_text(tomli_w.dumps(settings | {"head": {"kind": f"{module}:head"}}))
    assert (said := call("predict", "mine", "photos", "-o", "again.csv")).code == 2
    assert "head.kind" in said.err
