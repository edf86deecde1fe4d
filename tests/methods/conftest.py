import pytest

from fishr.tensor_trees import named_tensors


def _bits(tree):
    return {name: tensor.detach().cpu().contiguous().numpy().tobytes() for name, tensor in named_tensors(tree)}


@pytest.fixture
def same():
    """Whether two trees hold the same tensors, bit for bit."""

    return lambda one, other: _bits(one) == _bits(other)
