"""Keys and the first field that differs."""

from pathlib import Path

import pytest

from fishr.data.caches.provenance import cache_key, check_fit
from fishr.errors import InputError

BASE = {
    "data": 'kind = "ColoredDigits"\nflips = [0.2, 0.1]\n',
    "seed": 3,
    "weights_sha256": "a" * 64,
    "domains": ("photo", "sketch"),
    "library": "0.1.0",
    "torch": "2.9.0+cpu",
    "device": "cpu",
    "created": "2025-01-01",
}
CHANGES = {
    "data": ('kind = "ColoredDigits"\nflips = [0.2, 0.3]\n', "data.flips = [0.2, 0.3], expected [0.2, 0.1]"),
    "seed": (4, "seed = 4, expected 3"),
    "weights_sha256": ("b" * 64, "weights_sha256 = bbbbbbbbbbbb…, expected aaaaaaaaaaaa…"),
    "domains": (("photo",), "domains = ['photo'], expected ['photo', 'sketch']"),
    "library": ("0.2.0", "library = 0.2, expected 0.1"),
    "torch": ("2.10.0", "torch = 2.10, expected 2.9"),
}
SAME = {
    "library": "0.1.7",
    "torch": "2.9.1",
    "device": "cuda:0",
    "created": "2026-01-01",
    "domains": ("sketch", "photo"),
}


def _fits(found, **more):
    check_fit(Path("a.h5"), found, BASE, **more)


@pytest.mark.parametrize("field", CHANGES)
def test_a_change_is_another_key_and_is_named(field):
    changed = BASE | {field: CHANGES[field][0]}
    assert cache_key(changed) != cache_key(BASE)
    with pytest.raises(InputError) as caught:
        _fits(changed)
    assert str(caught.value).startswith(f"a.h5: made with {CHANGES[field][1]}; ")
    assert "\n" not in str(caught.value)
    _fits(changed, but=(field,))


@pytest.mark.parametrize("field", SAME)
def test_what_decides_nothing_is_the_same_key(field):
    changed = BASE | {field: SAME[field]}
    assert cache_key(changed) == cache_key(BASE)
    _fits(changed)


def test_the_first_field_is_named_in_the_order_wanted():
    with pytest.raises(InputError, match="made with seed = 4"):
        _fits(dict(reversed(BASE.items())) | {"seed": 4, "domains": (), "torch": "1.0"})


def test_fields_that_one_of_them_lacks():
    with pytest.raises(InputError, match="made with seed = none, expected 3"):
        _fits({name: value for name, value in BASE.items() if name != "seed"})
    with pytest.raises(InputError, match="made with transform = crop, expected none"):
        _fits(BASE | {"transform": "crop"})
    with pytest.raises(InputError, match=r"made with data\.kind = none, expected ColoredDigits"):
        _fits(BASE | {"data": "flips = [0.2, 0.1]"})


def test_other_words_for_the_same_settings_still_differ():
    with pytest.raises(InputError, match="made with data = "):
        _fits(BASE | {"data": 'flips = [0.2, 0.1]\nkind = "ColoredDigits"'})


def test_the_remedy_is_the_callers():
    with pytest.raises(InputError, match=r"expected 3; do this$"):
        _fits(BASE | {"seed": 4}, remedy="do this")
