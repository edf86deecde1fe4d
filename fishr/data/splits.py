"""DomainBed's seeds and hold-out splits, to the bit."""

from hashlib import md5

import numpy as np

from fishr.errors import InputError


def seed_hash(*args: object) -> int:
    """A seed from anything that has a repr: the MD5 of the tuple's text, modulo 2³¹.

    The text is Python's, so a NumPy scalar gives another seed than the plain number; give ints, strings, lists.

    Args:
        args: what the seed stands for.

    Returns:
        From 0 to 2³¹ − 1.

    Example:
        >>> seed_hash(0, 0), seed_hash("ColoredMNIST", "Fishr", [2], 0, 0)
        (894182419, 1295264072)

    Source:
        The convention of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """
    return int(md5(str(args).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


def split_rows(count: int, holdout_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """The rows of an environment that are trained on, and those held out.

    Args:
        count: rows in all.
        holdout_fraction: share that is held out; ⌊count · fraction⌋ rows.
        seed: of the shuffle; DomainBed's is ``seed_hash(trial_seed, environment)``.

    Returns:
        (in rows, out rows), each in the shuffled order.

    Raises:
        InputError: one of the two would be empty.

    Example:
        >>> split_rows(10, 0.2, seed_hash(0, 0))
        ([8, 1, 4, 5, 0, 9, 6, 7], [2, 3])

    Source:
        The convention of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """
    held_out = int(count * holdout_fraction)
    if not 0 < held_out < count:
        raise InputError(
            f"holdout_fraction: got {holdout_fraction} of {count} rows, which leaves {held_out} for validation and "
            f"{count - held_out} for training; expected at least one of each"
        )
    rows = list(range(count))
    np.random.RandomState(seed).shuffle(rows)
    return rows[held_out:], rows[:held_out]
