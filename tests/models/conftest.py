"""What tests of networks share."""

import socket

import pytest


@pytest.fixture
def no_network(monkeypatch):
    """A machine on which opening any connection is a failure of the test."""

    def refuse(*arguments, **options):
        pytest.fail("something asked for the network")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch.hub's folder of checkpoints, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder
