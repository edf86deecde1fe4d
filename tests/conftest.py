"""What several tests share."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A folder with MNIST/raw in torchvision's layout; without one the test is skipped."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FISHR_DATA_DIR", beside))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST/raw in {folder}: set FISHR_DATA_DIR to a folder that has it")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Bits depend on the number of threads; processes that tests start have one as well."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same global draws in every test, whatever runs before it."""
    torch.manual_seed(0)
