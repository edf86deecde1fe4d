import attrs
import pytest
import torch

from fishr.data.domains import Domain, Domains
from fishr.errors import InputError
from fishr.losses import CrossEntropy


def domain(name: str = "a", rows: int = 3, shape: tuple[int, ...] = (2,), label: int = 1) -> Domain:
    return Domain(name, torch.zeros(rows, *shape), torch.full((rows,), label))


def test_one_domain_without_evaluation_is_a_data_set():
    domains = Domains((domain(shape=(2, 8, 8)),), (), classes=2)
    assert domains.shape == (2, 8, 8)


def test_uneven_domains_and_a_class_missing_from_one_are_fine():
    domains = Domains((domain("a", 1, label=0), domain("b", 7, label=2)), (domain("c", 2),), classes=3)
    assert [len(one.labels) for one in domains.training] == [1, 7]


def test_records_are_frozen():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        domain().name = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("inputs", "labels", "reason"),
    [
        (torch.zeros(3, 2), torch.zeros(2).long(), "domain 'a': 3 inputs but 2 labels"),
        (torch.zeros(0, 2), torch.zeros(0).long(), "domain 'a': it has no samples"),
        (torch.zeros(3), torch.zeros(3).long(), r"inputs have shape \[3\], expected \[samples, features\]"),
        (torch.zeros(3, 0), torch.zeros(3).long(), r"inputs have shape \[3, 0\]"),
        (torch.zeros(3, 2), torch.zeros(3, 1).long(), r"labels have shape \[3, 1\], expected \[samples\]"),
        (torch.zeros(3, 2).int(), torch.zeros(3).long(), "inputs are torch.int32, expected floating point"),
        (torch.zeros(3, 2), torch.zeros(3).int(), "labels are torch.int32, expected torch.int64"),
    ],
)
def test_what_is_no_domain_is_refused(inputs, labels, reason):
    with pytest.raises(InputError, match=reason) as caught:
        Domain("a", inputs, labels)
    assert "\n" not in str(caught.value)


def test_a_domain_without_a_name_is_refused():
    with pytest.raises(InputError, match="its name is empty"):
        domain("")


@pytest.mark.parametrize(
    ("training", "evaluation", "classes", "reason"),
    [
        ((), (domain(),), 2, "there is no training domain"),
        ((domain("a"),), (domain("a"),), 2, "two are called 'a'"),
        ((domain("a"), domain("a")), (), 2, "two are called 'a'"),
        ((domain("a", shape=(2,)), domain("b", shape=(3,))), (), 2, r"'b': one input has shape \[3\], expected \[2\]"),
        ((domain("a", shape=(2,)),), (domain("b", shape=(2, 1)),), 2, r"'b': one input has shape \[2, 1\]"),
        ((domain("a"),), (domain("b", label=2),), 2, "'b': got label 2, expected .* 0 to 1.* subtract 1"),
        ((domain("a", label=0),), (), 1, "classes: got 1, expected at least 2"),
        (
            (domain("a"), Domain("b", torch.zeros(1, 2).double(), torch.zeros(1).long())),
            (),
            2,
            "'b': inputs are torch.float64, expected torch.float32 as in 'a'",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(training, evaluation, classes, reason):
    with pytest.raises(InputError, match=reason) as caught:
        Domains(training, evaluation, classes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("evaluation", [False, True])
def test_a_data_set_leaves_out_what_a_loss_does_not_take_and_refuses_the_rest_by_domain(evaluation: bool) -> None:
    def own(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits[:, 0]

    def of(labels: list[int]) -> Domains:
        pair = Domain("a", torch.eye(3), torch.tensor([0, 1, 0])), Domain("b", torch.eye(3), torch.tensor(labels))
        return Domains(pair[:1], pair[1:], classes=2) if evaluation else Domains(pair, (), classes=2)

    with pytest.raises(InputError, match="domain 'b': got label -1, expected whole numbers from 0 to 1"):
        of([1, -1, 0]).labeled(own)
    with pytest.raises(InputError, match="domain 'b': cross-entropy: got labels from -1 to 1"):
        of([1, -1, 0]).labeled(CrossEntropy())
    own.labeled = lambda labels: labels >= 0
    found = [domain.labels.tolist() for domain, _ in of([1, -1, 0]).labeled(own).by_split]
    assert found == [[0, 1, 0], [1, 0]]
    with pytest.raises(InputError, match="domain 'b': no sample has a label"):
        of([-1, -1, -1]).labeled(own)
