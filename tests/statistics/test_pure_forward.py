"""No statistic changes what it is given, and none depends on what was computed before it."""

from collections.abc import Callable

import pytest
import torch
from cases import EXACT, FLOAT64, HEADS, Tracking
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.statistics import gradient_gram, gradient_moments, per_sample_gradients
from fishr.statistics.pure_forward import twin

FUNCTIONS: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "moments": lambda head, z, y: gradient_moments(head, z, y, (4, 3)).variance,
    "functional moments": lambda head, z, y: gradient_moments(head, z, y, (4, 3), route="functional").variance,
    "gradients": lambda head, z, y: per_sample_gradients(head, z, y, CrossEntropy()),
    "Gram matrix": gradient_gram,
}
HEAD_NAMES = ("first layer in place", "functions in place", "spectral norm", "moving statistics", "0-dim parameter")


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("name", HEAD_NAMES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_features_buffers_and_attributes_stay_and_a_second_call_agrees(function: str, name: str, graph: bool) -> None:
    case = HEADS[name]
    head, features, labels = case.head(3), case.inputs(7), torch.randint(3, (7,))
    before, state = features.clone(), {key: value.clone() for key, value in head.state_dict().items()}
    attributes = [set(vars(module)) for module in head.modules()]
    with torch.set_grad_enabled(graph):
        first = FUNCTIONS[function](head, features, labels)
        assert_close(FUNCTIONS[function](head, features, labels), first, **EXACT)
    if graph:  # the backward pass makes per-sample gradients again
        first.sum().backward()
    assert torch.equal(features, before)
    assert all(torch.equal(value, state[key]) for key, value in head.state_dict().items())
    assert [set(vars(module)) for module in head.modules()] == attributes


def test_a_forward_pass_between_does_not_spoil_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are made again in the backward pass, from the buffers as they were in the forward pass."""
    case = HEADS["spectral norm"]
    head, features, labels = case.head(3), case.inputs(7), torch.randint(3, (7,))
    monkeypatch.setattr("fishr.statistics.functional_moments._CHUNK", 60)

    def gradient(between: bool) -> Tensor:
        value = gradient_moments(head, features, labels, (4, 3)).variance.sum()
        if between:
            head(features.clone())
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(head.parameters()))])

    start = {key: value.clone() for key, value in head.state_dict().items()}
    expected = gradient(between=False)
    head.load_state_dict(start)
    assert_close(gradient(between=True), expected, **EXACT)


def test_a_tensor_that_the_head_keeps_with_its_graph_is_no_obstacle() -> None:
    """As an attention map that a module keeps; torch's deepcopy refuses such tensors."""
    head = nn.Sequential(nn.Linear(3, 4), Tracking(4), nn.Linear(4, 3)).to(FLOAT64)
    features, labels = torch.randn(7, 3, dtype=FLOAT64), torch.randint(3, (7,))
    head(features)
    kept = head[1].last
    assert kept.grad_fn is not None
    for function in FUNCTIONS.values():
        function(head, features, labels)
    assert head[1].last is kept


class Locked(nn.Linear):
    """Holds what Python cannot copy."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.stream = (line for line in ())


def test_a_head_that_cannot_be_copied_is_refused_in_one_line() -> None:
    with pytest.raises(
        InputError, match=r"head: got Locked, which copy\.deepcopy cannot copy .*cannot pickle"
    ) as raised:
        twin(Locked())
    assert "\n" not in str(raised.value)
