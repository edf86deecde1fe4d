"""The recipes hold the published hyper-parameters."""

import attrs
import pytest

from fishr.data.batches import FullBatch
from fishr.data.digits import ColoredDigits
from fishr.data.mnist import ColoredMNIST
from fishr.errors import InputError
from fishr.losses import BinaryCrossEntropy
from fishr.models.featurizers import MLP
from fishr.models.heads import LinearHead
from fishr.penalties import ERM, IRM, Fishr, Scaled, StepSchedule, Total, VREx
from fishr.protocols import colored_digits, colored_mnist, recipes
from fishr.training.experiment import Experiment
from fishr.training.objective import Objective
from fishr.training.optimizers import Adam

PENALTIES = {
    "fishr": Fishr(ema=0.0, over_parameters="sum", over_domains="sum"),
    "irm": IRM(form="squared"),
    "vrex": VREx(form="pairwise"),
}


@pytest.mark.parametrize("method", PENALTIES)
def test_colored_mnist_is_the_published_protocol(method):
    schedule = StepSchedule(at=190, before=1.0, after=91257.18613115903)
    assert colored_mnist(method) == Experiment(
        name="colored-mnist" if method == "fishr" else f"colored-mnist-{method}",
        data=ColoredMNIST(flips=(0.2, 0.1), test_flip=0.9, label_noise=0.25, training_images=50_000),
        featurizer=MLP(widths=(390, 390)),
        head=LinearHead(),
        loss=BinaryCrossEntropy(),
        objective=Objective(
            risk=ERM(over="domains"),
            penalty=Total(**{method: Scaled(PENALTIES[method], schedule)}),
            l2=0.00110794568,
            rescale=True,
        ),
        optimizer=Adam(lr=0.0004898536566546834),
        batches=FullBatch(),
        steps=501,
        evaluate_every=25,
    )


def test_colored_digits_differs_by_data_steps_and_warm_up():
    digits, mnist = colored_digits(), colored_mnist()
    assert digits.objective.penalty.terms["fishr"].schedule.at == 120
    assert digits.steps == 240
    assert digits.data == ColoredDigits(training_images=1300, copies=5)
    same = attrs.evolve(digits, name=mnist.name, data=mnist.data, objective=mnist.objective, steps=mnist.steps)
    assert same == mnist


def test_erm_has_the_weight_decay_alone():
    objective = colored_mnist("erm").objective
    assert objective == Objective(risk=ERM(over="domains"), l2=0.00110794568)
    assert not objective.rescale


def test_clean_labels_are_a_value():
    assert colored_mnist(label_noise=0.0).data == ColoredMNIST(label_noise=0.0)


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="method: got 'coral', expected erm, irm, vrex, fishr"):
        colored_digits("coral")


def test_recipes_are_named_after_their_experiments():
    table = recipes()
    endings = ["", "-erm", "-irm", "-vrex"]
    assert list(table) == [name + ending for name in ("colored-digits", "colored-mnist") for ending in endings]
    for name, recipe in table.items():
        assert recipe().name == name
        assert recipe.description
        assert "\n" not in recipe.description
