"""The table of heads, losses and sizes that every quantity is measured on."""

import pytest
from diagnostics.dense import CASES, Dense, dense


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}, {case[1]}, {case[2]}")
def case(request: pytest.FixtureRequest) -> Dense:
    return dense(*request.param)
