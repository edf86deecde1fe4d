import pytest
import torch
from torch import nn

from fishr.errors import InputError
from fishr.mixed_samples import features_of, refuse_mixed_samples


@pytest.mark.parametrize("name", ["mixes_samples", "mixes_rows"])
def test_a_featurizer_that_mixes_samples_gets_their_number_by_its_present_and_its_earlier_name(name: str) -> None:
    class Counted(nn.Module):
        def forward(self, inputs: torch.Tensor, sizes: tuple[int, ...] | None = None) -> torch.Tensor:
            return inputs * len(sizes or ())

    inputs, module = torch.ones(3, 2), Counted()
    assert torch.equal(features_of(module, inputs, (1, 2)), 0 * inputs)
    setattr(module, name, True)
    assert torch.equal(features_of(module, inputs, (1, 2)), 2 * inputs)
    with pytest.raises(InputError, match=r"ranks: got a featurizer \(Counted\) whose features"):
        refuse_mixed_samples(module, "ranks", "train on one rank")
