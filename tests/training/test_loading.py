"""Training on embedded data loads no module that it does not use."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import fishr
list(zip(range(3), fishr.train(fishr.protocols.colored_digits())))
print(*sys.modules)
"""
UNUSED = (
    "fishr.analysis",
    "fishr.commands",
    "fishr.configuration",
    "fishr.data.caches",
    "fishr.data.images",
    "fishr.data.sources",
    "fishr.diagnostics",
    "fishr.landscape",
    "fishr.plots",
    "fishr.protocols.domainbed",
    "fishr.sweeps",
    "backpack",
    "h5py",
    "matplotlib",
    "PIL",
    "requests",
    "sympy",
)


@pytest.mark.slow
def test_a_run_on_embedded_digits_loads_no_archive_image_landscape_or_hdf5_module():
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    loaded = found.stdout.split()
    assert "fishr.training.step" in loaded
    assert [name for name in loaded if name.startswith(UNUSED)] == []
    assert sum(name.split(".")[0] == "fishr" for name in loaded) < 80
