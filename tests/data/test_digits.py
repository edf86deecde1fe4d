import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from fishr.data.digits import ColoredDigits
from fishr.errors import InputError


def pictures_of(domain) -> list[bytes]:
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


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_picture_is_used_once(seed):
    domains = ColoredDigits()(seed, None)
    used = [picture for domain in (*domains.training, domains.evaluation[0]) for picture in pictures_of(domain)]
    original = [picture.astype(np.uint8).tobytes() for picture in load_digits().images]
    assert sorted(used) == sorted(original)


def test_clean_labels_count_the_digits_below_five():
    # load_digits documents 178, 182, 177, 183, 181 pictures of the digits 0 to 4.
    domains = ColoredDigits(label_noise=0.0)(seed=1, data_dir=None)
    labels = torch.cat([domain.labels for domain in (*domains.training, domains.evaluation[0])])
    assert labels.sum() == 178 + 182 + 177 + 183 + 181


def test_labels_belong_to_their_pictures():
    data = load_digits()
    known = {
        picture.astype(np.uint8).tobytes(): int(digit < 5)
        for picture, digit in zip(data.images, data.target, strict=True)
    }
    for domain in ColoredDigits(label_noise=0.0)(seed=2, data_dir=None).training:
        assert [known[picture] for picture in pictures_of(domain)] == domain.labels.tolist()


@settings(max_examples=10, deadline=None)
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
    with pytest.raises(InputError, match="training_images: got 1797, expected at most 1796: there are 1797"):
        ColoredDigits(training_images=1797)(seed=0, data_dir=None)


def test_wrong_probabilities_are_refused_at_once():
    with pytest.raises(InputError, match="test_flip: got 9, expected a probability"):
        ColoredDigits(test_flip=9)
