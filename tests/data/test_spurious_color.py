import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fishr.data.spurious_color import (
    binary_labels,
    check_flips,
    check_remainder,
    colored,
    colored_domains,
    flipped,
    gray,
)
from fishr.errors import InputError

probabilities = st.floats(0, 1)
seeds = st.integers(0, 2**32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within_chance(rate: float, probability: float, count: int) -> bool:
    """Five standard deviations of a binomial proportion, and some counts more for rates near 0 and 1."""
    return abs(rate - probability) <= 5 * math.sqrt(probability * (1 - probability) / count) + 10 / count


@given(probability=probabilities, seed=seeds)
def test_labels_are_wrong_at_the_rate_of_the_noise(probability, seed):
    digits = torch.arange(20_000) % 10
    wrong = binary_labels(digits, probability, generator(seed)) != (digits < 5).long()
    assert within_chance(wrong.double().mean().item(), probability, 20_000)


@given(probability=probabilities, seed=seeds)
def test_colors_disagree_with_labels_at_the_rate_of_the_flip(probability, seed):
    labels = torch.arange(20_000) % 2
    wrong = flipped(labels, probability, generator(seed)) != labels
    assert within_chance(wrong.double().mean().item(), probability, 20_000)


def test_probabilities_of_zero_and_one_are_exact():
    digits = torch.arange(10)
    clean = torch.tensor([1] * 5 + [0] * 5)
    assert torch.equal(binary_labels(digits, 0.0, generator()), clean)
    assert torch.equal(binary_labels(digits, 1.0, generator()), 1 - clean)
    assert torch.equal(flipped(clean, 0.0, generator()), clean)
    assert torch.equal(flipped(clean, 1.0, generator()), 1 - clean)


def test_the_draws_do_not_depend_on_the_probability():
    clean, noisy = generator(), generator()
    binary_labels(torch.arange(10), 0.0, clean)
    binary_labels(torch.arange(10), 0.25, noisy)
    assert torch.equal(clean.get_state(), noisy.get_state())


def test_color_c_zeroes_channel_one_minus_c():
    # As in the IRM protocol: both channels hold the image, then channel 1 - color is multiplied by zero.
    images = torch.rand(50, 3, 4, generator=generator())
    colors = torch.randint(2, (50,), generator=generator(1))
    expected = torch.stack([images, images], dim=1)
    for row in range(50):
        expected[row, 1 - colors[row]] *= 0
    assert torch.equal(colored(images, colors), expected)


def test_gray_keeps_both_channels():
    images = torch.rand(5, 3, 4, generator=generator())
    assert torch.equal(gray(images)[:, 0], images)
    assert torch.equal(gray(images)[:, 1], images)


def test_domains_equal_the_construction_written_out_slowly():
    count, kept = 40, 25
    images = torch.arange(1.0, count + 1).reshape(count, 1, 1).expand(count, 2, 2).contiguous()
    digits = torch.arange(count) % 10
    order = torch.randperm(count, generator=generator(5))
    made = colored_domains(images, digits, order[:kept], order[kept:], (0.4, 0.3), 0.8, 0.25, generator(6))
    draws = generator(6)
    parts = [
        (made.training[0], order[:kept].tolist()[::2], 0.4),
        (made.training[1], order[:kept].tolist()[1::2], 0.3),
        (made.evaluation[0], order[kept:].tolist(), 0.8),
    ]
    for domain, rows, flip in parts:
        noise = torch.rand(len(rows), generator=draws).tolist()
        exchange = torch.rand(len(rows), generator=draws).tolist()
        for place, row in enumerate(rows):
            label = int(digits[row] < 5) ^ int(noise[place] < 0.25)
            color = label ^ int(exchange[place] < flip)
            assert domain.labels[place] == label
            assert torch.equal(domain.inputs[place, color], images[row])
            assert torch.equal(domain.inputs[place, 1 - color], torch.zeros(2, 2))
    assert torch.equal(made.evaluation[1].labels, made.evaluation[0].labels)
    assert torch.equal(made.evaluation[1].inputs, gray(images[order[kept:]]))


@pytest.mark.parametrize("domains", [1, 2, 3])
def test_rows_are_dealt_in_turn(domains):
    images = torch.arange(1.0, 12).reshape(11, 1, 1)
    flips = (0.1, 0.2, 0.3)[:domains]
    rows = torch.arange(11)
    made = colored_domains(images, rows % 10, rows[:10], rows[10:], flips, 0.9, 0.25, generator())
    for start, domain in enumerate(made.training):
        assert domain.inputs.sum(dim=(1, 2, 3)).tolist() == list(range(start + 1, 11, domains))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"flips": ()}, "flips: got none, expected a probability for each training domain"),
        ({"flips": (0.2, -0.1)}, "flips: got -0.1, expected a probability from 0 to 1"),
        ({"flips": (0.2, math.nan)}, "flips: got nan"),
        ({"flips": (0.2, 0.2)}, r"flips: got \(0.2, 0.2\), expected no value twice"),
        ({"test_flip": 1.01}, "test_flip: got 1.01, expected a probability from 0 to 1"),
        ({"label_noise": -1.0}, "label_noise: got -1.0, expected a probability from 0 to 1"),
        ({"training_images": 1}, "training_images: got 1, expected at least 2"),
    ],
)
def test_settings_that_make_no_domains_are_refused(changes, reason):
    right = {"flips": (0.2, 0.1), "test_flip": 0.9, "label_noise": 0.25, "training_images": 10}
    check_flips(**right)
    with pytest.raises(InputError, match=reason) as caught:
        check_flips(**(right | changes))
    assert "\n" not in str(caught.value)


def test_evaluation_needs_a_image():
    check_remainder(9, 10)
    with pytest.raises(InputError, match="training_images: got 10, expected at most 9"):
        check_remainder(10, 10)
