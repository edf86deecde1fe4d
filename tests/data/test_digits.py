from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from fishr.data.digits import ColoredDigits
from fishr.errors import InputError


def images_of(domain) -> list[bytes]:
    """Each row without its colour: the channels' sum, since one of them is zero."""
    return [np.rint(row.sum(0).numpy() * 16).astype(np.uint8).tobytes() for row in domain.inputs]


def test_shapes_names_and_ranges():
    domains = ColoredDigits()(seed=0, data_dir=None)
    assert [domain.name for domain in domains.training] == ["flip 0.2", "flip 0.1"]
    assert [domain.name for domain in domains.evaluation] == ["reversed", "gray"]
    for domain, rows in zip((*domains.training, *domains.evaluation), (750, 750, 297, 297), strict=True):
        assert domain.inputs.shape == (rows, 2, 8, 8)
        assert domain.inputs.dtype == torch.float32
        assert domain.inputs.min() == 0
        assert domain.inputs.max() == 1
    assert domains.classes == 2


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_every_image_is_used_once(seed):
    domains = ColoredDigits()(seed, None)
    used = [image for domain in (*domains.training, domains.evaluation[0]) for image in images_of(domain)]
    original = [image.astype(np.uint8).tobytes() for image in load_digits().images]
    assert sorted(used) == sorted(original)


def test_clean_labels_count_the_digits_below_five():
    # load_digits documents 178, 182, 177, 183, 181 images of the digits 0 to 4.
    domains = ColoredDigits(label_noise=0.0)(seed=1, data_dir=None)
    labels = torch.cat([domain.labels for domain in (*domains.training, domains.evaluation[0])])
    assert labels.sum() == 178 + 182 + 177 + 183 + 181


def test_labels_belong_to_their_images():
    data = load_digits()
    known = {
        image.astype(np.uint8).tobytes(): int(digit < 5) for image, digit in zip(data.images, data.target, strict=True)
    }
    for domain in ColoredDigits(label_noise=0.0)(seed=2, data_dir=None).training:
        assert [known[image] for image in images_of(domain)] == domain.labels.tolist()


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_colours_agree_with_labels_as_often_as_the_flips_say(seed):
    domains = ColoredDigits()(seed, None)
    for domain, flip in zip((*domains.training, domains.evaluation[0]), (0.2, 0.1, 0.9), strict=True):
        colors = domain.inputs.sum(dim=(2, 3)).argmax(dim=1)
        disagreement = (colors != domain.labels).double().mean().item()
        assert abs(disagreement - flip) < 5 * (flip * (1 - flip) / len(colors)) ** 0.5


def test_gray_has_the_reversed_rows_and_labels():
    reverse, gray = ColoredDigits()(seed=0, data_dir=None).evaluation
    assert torch.equal(reverse.labels, gray.labels)
    assert torch.equal(gray.inputs[:, 0], gray.inputs[:, 1])
    assert torch.equal(reverse.inputs.sum(1), gray.inputs[:, 0])


def test_one_seed_is_one_data_set_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (ColoredDigits()(seed, None).training[0] for seed in (0, 0, 1))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.inputs, other.inputs)
    assert torch.equal(torch.get_rng_state(), before)


def test_too_many_training_images_are_refused():
    with pytest.raises(InputError, match="training_images: got 1797, expected at most 1796: there are 1797 images"):
        ColoredDigits(training_images=1797)(seed=0, data_dir=None)


def test_wrong_probabilities_are_refused_at_once():
    with pytest.raises(InputError, match="test_flip: got 9, expected a probability"):
        ColoredDigits(test_flip=9)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), copies=st.integers(2, 5), flips=st.sampled_from([(0.2, 0.1), (0.3, 0.2, 0.1)]))
def test_each_training_image_makes_several_samples_in_one_domain(seed, copies, flips):
    data = ColoredDigits(flips=flips, training_images=200, copies=copies)(seed, None)
    counts = [Counter(images_of(domain)) for domain in data.training]
    assert {count for counted in counts for count in counted.values()} == {copies}
    assert len(set().union(*counts)) == sum(map(len, counts)) == 200
    assert len(set(images_of(data.evaluation[0]))) == 1797 - 200
    assert not set(images_of(data.evaluation[0])) & set().union(*counts)


def test_copies_draw_label_noise_and_color_of_their_own():
    domains = ColoredDigits(flips=(0.2,), training_images=1300, copies=5)(seed=0, data_dir=None).training
    colors = domains[0].inputs.sum(dim=(2, 3)).argmax(dim=1)
    # Row i of the first copy is the same image in the others.
    for drawn in (domains[0].labels.view(5, 1300), colors.view(5, 1300)):
        for first, second in combinations(drawn, 2):
            assert 0.2 < (first != second).double().mean() < 0.6
    noise = (
        (
            domains[0].labels
            != ColoredDigits(flips=(0.2,), label_noise=0.0, training_images=1300, copies=5)(seed=0, data_dir=None)
            .training[0]
            .labels
        )
        .double()
        .view(5, 1300)
    )
    assert torch.allclose(noise.mean(1), torch.tensor(0.25, dtype=torch.float64), atol=0.05)


def test_one_copy_is_what_it_was_before_there_were_copies():
    """The default, and what a configuration of an earlier version means: the same samples from the same draws."""
    first, second = ColoredDigits()(seed=0, data_dir=None).training
    digits = load_digits()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(1797, generator=generator)[:1500]
    labels = (torch.as_tensor(digits.target)[order[::2]] < 5) ^ (torch.rand(750, generator=generator) < 0.25)
    assert torch.equal(first.labels, labels.long())
    assert torch.equal(second.inputs.sum(1) * 16, torch.as_tensor(digits.images).float()[order[1::2]])


def test_no_copy_is_refused():
    with pytest.raises(InputError, match="copies: got 0, expected a whole number of at least 1"):
        ColoredDigits(copies=0)
