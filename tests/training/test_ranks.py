"""Several ranks train what one process trains: weights, penalties, averages and scores, and any number goes on."""

import attrs
import pytest
import torch
from ranks import on_ranks
from torch import nn

from fishr.data.batches import FullBatch, Minibatch
from fishr.data.digits import ColoredDigits
from fishr.data.domains import Domain, Domains
from fishr.errors import InputError
from fishr.losses import BinaryCrossEntropy, CrossEntropy
from fishr.models.featurizers import MLP
from fishr.models.heads import LinearHead, MLPHead
from fishr.penalties import ERM, IRM, Fishr, Scaled, Stateless, Total, VREx
from fishr.ranks import ALONE, Ranks
from fishr.training.experiment import Experiment
from fishr.training.loop import Evaluated, Finished, Started, Stepped, refuse_split_batch_norm, train
from fishr.training.model import Model
from fishr.training.objective import Objective
from fishr.training.sgd import SGD

pytestmark = pytest.mark.slow

EXACT = {torch.float32: 1e-6, torch.float64: 1e-12}


@attrs.frozen
class Uneven:
    """Domains of 23, 9 and 14 rows: no number of ranks cuts them all evenly."""

    sizes: tuple[int, ...] = (23, 9, 14)

    def __call__(self, seed, data_dir):
        generator = torch.Generator().manual_seed(seed)

        def domain(name, rows):
            inputs = torch.randn(rows, 5, generator=generator, dtype=torch.float64).to(torch.get_default_dtype())
            return Domain(name, inputs, torch.randint(3, (rows,), generator=generator))

        training = tuple(domain(f"domain {index}", rows) for index, rows in enumerate(self.sizes))
        return Domains(training, (domain("elsewhere", 5),), classes=3)


def reads_rows(seen):
    """A penalty of someone's own, of rows, their order and the Gram matrix."""
    order = torch.arange(len(seen.losses), dtype=seen.losses.dtype)
    return (seen.losses * order).mean() + seen.features[::3].square().mean() + seen.gram[0].mean()


def drawn(seen):
    """A penalty that draws a weight for each sample."""
    weights = torch.rand(len(seen.losses), generator=seen.generator("drawn"))
    return (seen.losses * weights.to(seen.losses.dtype)).mean()


PENALTIES = {
    "fishr": Fishr(ema=0.9),
    "covariance": Fishr(statistic="covariance"),
    "unbiased": Fishr(unbiased=True, ema=0.5, gain="debiased"),
    "rex": VREx(),
    "irm": IRM("half_batches"),
    "rows": Stateless(reads_rows),
    "drawn": Stateless(drawn),
}


HEAD, EVERYTHING = LinearHead(), FullBatch()


def experiment(name, head=HEAD, batches=EVERYTHING, steps=1):
    return Experiment(
        name=name,
        data=Uneven(),
        featurizer=MLP(widths=(6,)),
        head=head,
        loss=CrossEntropy(),
        # Plain descent at rate 1 makes an update the gradient itself.
        objective=Objective(risk=ERM("samples"), penalty=Total(it=Scaled(PENALTIES[name], 3.0)), l2=0.01),
        optimizer=SGD(lr=1.0),
        batches=batches,
        steps=steps,
    )


def follow(ranks: Ranks, make, arguments, dtype, state=None):
    """Every event's numbers, and the last state; called by name, as penalties of one's own are not pickled."""
    torch.set_default_dtype(dtype)
    try:
        records, scores, last = [], (), state
        for event in train(make(*arguments), state=state, ranks=ranks):
            if isinstance(event, Stepped):
                records.append(event.record)
                last = event.state
            elif isinstance(event, Evaluated | Finished):
                scores = event.scores
        return records, scores, last
    finally:
        torch.set_default_dtype(torch.float32)


def assert_same(found, expected, dtype):
    tolerance = EXACT[dtype]
    (records, scores, state), (records_of_one, scores_of_one, state_of_one) = found, expected
    for name, weight in state_of_one.parameters.items():
        scale = float(weight.abs().max())
        torch.testing.assert_close(state.parameters[name], weight, rtol=tolerance, atol=tolerance * scale)
    for record, other in zip(records, records_of_one, strict=True):
        got, wanted = ([r.loss, r.risk, r.terms["it"].value, *r.domain_losses] for r in (record, other))
        assert got == pytest.approx(wanted, rel=10 * tolerance, abs=tolerance)
    for score, other in zip(scores, scores_of_one, strict=True):
        assert score.loss == pytest.approx(other.loss, rel=10 * tolerance)
        assert (score.name, score.accuracy, score.samples) == (other.name, other.accuracy, other.samples)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [2, 4])
def test_ranks_take_the_step_of_one_process(count, dtype):
    cases = [(name,) for name in PENALTIES] + [("fishr", MLPHead(widths=(4,))), ("fishr", LinearHead(), Minibatch(7))]
    everyone = on_ranks(count, follow_all, cases, dtype)
    for index, arguments in enumerate(cases):
        expected = follow(ALONE, experiment, arguments, dtype)
        for found in everyone:
            assert_same(found[index], expected, dtype)


def follow_all(ranks: Ranks, cases, dtype):
    return [follow(ranks, experiment, arguments, dtype) for arguments in cases]


def test_all_ranks_hold_the_same_bits(same):
    states = [
        found[2] for found in on_ranks(3, follow, experiment, ("fishr", LinearHead(), FullBatch(), 4), torch.float32)
    ]
    assert states[0].penalty["it"].updates == 4
    for state in states[1:]:
        assert same(state, states[0])


def test_another_number_of_ranks_goes_on():
    arguments = ("fishr", LinearHead(), Minibatch(8))
    _, _, state = follow(ALONE, experiment, (*arguments, 2), torch.float64)
    _, _, state = on_ranks(4, follow, experiment, (*arguments, 4), torch.float64, state)[3]
    records, scores, state = on_ranks(2, follow, experiment, (*arguments, 6), torch.float64, state)[0]
    expected = follow(ALONE, experiment, (*arguments, 6), torch.float64)
    assert [record.step for record in records] == [4, 5]
    assert_same((records, scores, state), (expected[0][4:], *expected[1:]), torch.float64)


def digits(clip):
    fishr = Scaled(Fishr(ema=0.95), 20.0)
    return Experiment(
        name="digits",
        data=ColoredDigits(training_images=300),
        featurizer=MLP(widths=(8,)),
        head=LinearHead(),
        loss=BinaryCrossEntropy(),
        objective=Objective(penalty=Total(it=fishr)),
        optimizer=SGD(lr=0.1, momentum=0.9),
        batches=Minibatch(size=13),
        clip_norm=clip,
        steps=5,
    )


def test_several_steps_with_clipping_of_the_common_gradient():
    expected = follow(ALONE, digits, (0.05,), torch.float32)
    unclipped = follow(ALONE, digits, (None,), torch.float32)
    records, _, state = on_ranks(2, follow, digits, (0.05,), torch.float32)[1]
    for name, weight in expected[2].parameters.items():
        torch.testing.assert_close(state.parameters[name], weight, rtol=1e-3, atol=1e-4)
    assert records[-1].loss == pytest.approx(expected[0][-1].loss, rel=1e-4)
    assert records[-1].loss != pytest.approx(unclipped[0][-1].loss, rel=1e-4)


def test_a_batch_that_not_every_rank_has_rows_of_is_refused():
    message = on_ranks(3, refusal, ("fishr", LinearHead(), Minibatch(2)))[0]
    assert message.startswith("batches: got 2 samples of a domain for 3 ranks, expected at least 3"), message


def refusal(ranks: Ranks, arguments):
    try:
        follow(ranks, experiment, arguments, torch.float32)
    except InputError as error:
        return str(error)


def test_batch_normalization_is_refused_by_name_where_each_rank_would_have_its_own():
    norm = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with pytest.raises(InputError, match=r"^featurizer\.1: got batch normalization .* freeze it"):
        refuse_split_batch_norm(Model(norm, nn.Linear(4, 2)))
    refuse_split_batch_norm(Model(norm.eval(), nn.Linear(4, 2)))
    assert on_ranks(2, refuses_normalization) == [True, True]


def refuses_normalization(ranks: Ranks):
    made = attrs.evolve(digits(None), featurizer=Normalizing())
    with pytest.raises(InputError, match="batch normalization"):
        next(train(made, ranks=ranks))
    return True


@attrs.frozen
class Normalizing:
    def __call__(self, shape, generator):
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(shape[0] * shape[1] * shape[2]))

    def features(self, shape):
        return shape[0] * shape[1] * shape[2]


@attrs.frozen
class Dropping:
    def __call__(self, shape, generator):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5))

    def features(self, shape):
        return shape[0]


def test_random_layers_draw_anew_on_each_rank_and_at_each_step():
    one, other = on_ranks(2, masks)
    for step, step_of_other in zip(one, other, strict=True):
        assert not torch.equal(step[:4], step_of_other[:4])
    assert not torch.equal(one[0], one[1])


def masks(ranks: Ranks):
    made = attrs.evolve(experiment("rex", steps=2), featurizer=Dropping())
    found = []
    for event in train(made, ranks=ranks):
        if isinstance(event, Started):
            event.model.featurizer[1].register_forward_hook(lambda *call: found.append(call[2] == 0))
    return found[:2]
