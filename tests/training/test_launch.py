"""How the processes of a run meet and part: what each does with the launcher's signal, and with refusals."""

import os
import signal

import pytest
import torch.distributed as dist
from ranks import on_ranks

from fishr.errors import InputError
from fishr.ranks import ALONE, RankLost, Ranks
from fishr.training.launch import Refused, agreed, from_first, joined

pytestmark = pytest.mark.slow


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """As the only process that came of two that torchrun began; the handler of SIGTERM is put back."""
    begin = dist.init_process_group
    store = dist.FileStore(str(tmp_path / "store"), 1)
    monkeypatch.setattr(dist, "init_process_group", lambda backend: begin(backend, store=store, rank=0, world_size=1))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.getsignal(signal.SIGTERM)
    yield before
    signal.signal(signal.SIGTERM, before)
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_process_that_no_launcher_began_is_alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    before = signal.getsignal(signal.SIGTERM)
    with joined("cpu") as (ranks, device):
        assert (ranks.alone, device) == (True, "cpu")
        assert signal.getsignal(signal.SIGTERM) == before
        assert not dist.is_initialized()


def test_the_group_is_left_at_the_end_and_the_signal_is_as_before(launched):
    with joined("cpu") as (ranks, device):
        assert (ranks.number, ranks.count, device) == (0, 1, "cpu")
        assert signal.getsignal(signal.SIGTERM) != launched
    assert signal.getsignal(signal.SIGTERM) == launched
    assert not dist.is_initialized()


def test_so_it_is_after_an_error(launched):
    with pytest.raises(ValueError, match="mine"), joined("cpu"):
        raise ValueError("mine")
    assert signal.getsignal(signal.SIGTERM) == launched
    assert not dist.is_initialized()


def test_the_launchers_signal_is_a_lost_rank_and_leaves_the_time_to_say_so(launched):
    def signalled():
        with joined("cpu"):
            with pytest.raises(RankLost, match="another process of the run is gone"):
                os.kill(os.getpid(), signal.SIGTERM)
            # A second signal does not cut short what is done about the first.
            os.kill(os.getpid(), signal.SIGTERM)
            raise RankLost("all done")

    with pytest.raises(RankLost, match="all done"):
        signalled()
    os.kill(os.getpid(), signal.SIGTERM)


def test_after_a_lost_rank_the_signal_that_follows_is_not_heard(launched):
    with pytest.raises(RankLost), joined("cpu"):
        raise RankLost("gone")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_a_device_that_is_absent_is_refused_before_any_group(launched):
    with pytest.raises(InputError, match="device: got 'tpu'"), joined("tpu"):
        pass
    assert not dist.is_initialized()
    assert signal.getsignal(signal.SIGTERM) == launched


def refusing(ranks: Ranks, who: int) -> str:
    def make() -> int:
        if ranks.number == who:
            raise InputError("no such file")
        return ranks.number

    try:
        return f"made {agreed(make, ranks)}"
    except Refused as refusal:
        return str(refusal)


def test_what_one_rank_refuses_all_refuse_in_its_words():
    assert on_ranks(3, refusing, 5) == ["made 0", "made 1", "made 2"]
    assert on_ranks(3, refusing, 0) == ["no such file"] * 3
    assert on_ranks(3, refusing, 2) == ["rank 2: no such file"] * 3


def told(ranks: Ranks) -> object:
    return from_first({"folder": f"runs/{ranks.number}"}, ranks)


def test_the_first_rank_speaks_for_all():
    assert on_ranks(3, told) == [{"folder": "runs/0"}] * 3
    assert from_first("own", ALONE) == "own"
