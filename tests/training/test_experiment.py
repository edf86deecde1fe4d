"""An experiment refuses what makes no run."""

import attrs
import pytest

from fishr.errors import InputError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: got 0, expected a whole number of at least 1"),
        ({"steps": 5.0}, "steps: got 5.0, expected a whole number"),
        ({"steps": True}, "steps: got True, expected a whole number"),
        ({"evaluate_every": 0}, "evaluate_every: got 0"),
        ({"checkpoint_every": -1}, "checkpoint_every: got -1"),
        ({"seed": -1}, "seed: got -1, expected a whole number of at least 0"),
        ({"seed": "0"}, "seed: got '0'"),
        ({"name": " "}, "name: got ' '"),
        ({"name": "a\nb"}, "name: got"),
    ],
)
def test_what_makes_no_run_is_refused(plain, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        attrs.evolve(plain, **changes)
    assert "\n" not in str(caught.value)


def test_an_experiment_is_a_value(plain):
    assert attrs.evolve(plain, seed=0) == plain
    assert attrs.evolve(plain, seed=1) != plain
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        plain.seed = 3
