"""Methods that train networks of their own against loops with torch.optim in float64, on ranks, and without classes."""

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from fishr.data import Domain, Domains
from fishr.data.batches import Minibatch
from fishr.errors import InputError
from fishr.losses import BinaryCrossEntropy, CrossEntropy
from fishr.methods import ADRMX, CDANN, DANN, METHODS, URM, Activated, Adversary, LabelAndDomain
from fishr.methods.urm import uniform_like
from fishr.models.featurizers import MLP
from fishr.models.heads import LabelHead, LinearHead
from fishr.observation import observe
from fishr.penalties import ERM, Scaled, Total
from fishr.ranks import ALONE, Ranks
from fishr.tensor_trees import named_tensors
from fishr.training import Adam, Experiment, Objective, Stepped, build_model, first_state, train
from fishr.training.step import advance
from fishr.types import DomainBatch, Problem

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
OWN = Adam(lr=0.03, betas=(0.5, 0.9), weight_decay=0.01)
ADVERSARY = Adversary(width=6, depth=4, steps=2, gradient_penalty=0.7, optimizer=OWN)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def three_domains(seed: int, data_dir: object) -> Domains:
    """Three domains of 13, 9 and 11 samples in 4 classes; the batches below have samples of 3 classes."""
    draws = torch.Generator().manual_seed(seed)

    def domain(index: int, rows: int) -> Domain:
        return Domain(
            f"domain {index}", torch.randn(rows, 4, generator=draws), torch.randint(4, (rows,), generator=draws)
        )

    return Domains(tuple(domain(index, rows) for index, rows in enumerate((13, 9, 11))), (domain(3, 4),), classes=4)


def experiment(risk: Any) -> Experiment:
    return Experiment(
        name="adversaries",
        data=three_domains,
        featurizer=MLP(widths=(5,)),
        head=LinearHead(),
        loss=CrossEntropy(),
        objective=Objective(risk=risk),
        optimizer=Adam(lr=0.02),
        batches=Minibatch(6),
        steps=7,
    )


def batch_of(step: int) -> DomainBatch:
    """Domain 1 is missing from each second batch, and class 1 from all."""
    draws = torch.Generator().manual_seed(step)
    sizes = (5, 0, 4) if step % 2 else (3, 4, 4)
    labels = torch.randint(3, (sum(sizes),), generator=draws)
    return DomainBatch(torch.randn(sum(sizes), 4, generator=draws), labels + (labels > 0), sizes)


def weighted(losses: Tensor, labels: Tensor, form: str) -> Tensor:
    """Each class counts alike, and of these the largest label stands for the number in DomainBed."""
    classes = max(labels.tolist()) + 1 if form == "domainbed" else len(set(labels.tolist()))
    total = torch.zeros(())
    for label in set(labels.tolist()):
        weight = torch.tensor(1 / (int((labels == label).sum()) * classes))
        weight = weight.float().double() if form == "domainbed" else weight
        total = total + weight * losses[labels == label].sum()
    return total


@pytest.mark.parametrize("form", ["domainbed", "paper"])
@pytest.mark.parametrize("method", [DANN, CDANN])
def test_adversaries_train_as_torch_does(method: Callable[..., Any], form: str) -> None:
    made = experiment(method(weight=0.6, adversary=ADVERSARY, form=form))
    domains = made.data(0, None)
    model = build_model(made, domains)
    state = first_state(made, model, 3)

    network = nn.Sequential(model.featurizer, model.head)
    critic, classes = ADVERSARY.network(5, 3), nn.Embedding(4, 5)
    own = {name.removeprefix("discriminator."): p for name, p in state.penalty["risk"].parameters.items()}
    if method is CDANN:
        classes.load_state_dict({"weight": own.pop("class_embeddings.weight")})
    critic.load_state_dict(own)
    oracle = [p.detach().clone().requires_grad_() for p in network.parameters()]
    of_network = torch.optim.Adam(oracle, lr=0.02)
    trained = [*critic.parameters(), *(classes.parameters() if method is CDANN else ())]
    of_critic = torch.optim.Adam(trained, lr=0.03, betas=(0.5, 0.9), weight_decay=0.01)

    for step in range(7):
        batch = batch_of(step)
        state, record = advance(model, made, state, batch)

        ids = torch.repeat_interleave(torch.arange(3), torch.tensor(batch.sizes))
        weight, bias, weight_of_head, bias_of_head = oracle
        z = (batch.inputs @ weight.T + bias).relu()
        inputs = z + classes(batch.labels) if method is CDANN else z
        losses = cross_entropy(critic(inputs), ids, reduction="none")
        slopes = torch.autograd.grad(losses.sum(), inputs, create_graph=True)[0]
        adversarial = weighted(losses, batch.labels, form) if method is CDANN else losses.mean()
        adversarial = adversarial + 0.7 * slopes.norm(dim=1).square().mean()
        risk = cross_entropy(z @ weight_of_head.T + bias_of_head, batch.labels)
        by_critic = torch.autograd.grad(adversarial, trained, retain_graph=True)
        by_network = torch.autograd.grad(risk - 0.6 * adversarial, oracle)
        of_turn = (step + 1) % 3 < 2
        assert record.risk == pytest.approx(
            (adversarial if of_turn and form == "domainbed" else risk - 0.6 * adversarial).item(), rel=1e-12
        )
        for parameters, gradients, optimizer, moves in (
            (trained, by_critic, of_critic, of_turn or form == "paper"),
            (oracle, by_network, of_network, not of_turn or form == "paper"),
        ):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient if moves else None
            optimizer.step()

    assert_close([*state.parameters.values()], [p.detach() for p in oracle], **CLOSE)
    named = state.penalty["risk"].parameters
    expected = [named[name] for name in named if "class" not in name] + [p for n, p in named.items() if "class" in n]
    assert_close(expected, [p.detach() for p in trained], **CLOSE)


@pytest.mark.parametrize(("activation", "low"), [("tanh", -1.0), ("relu", 0.0)])
def test_features_like_noise_train_as_torch_does(activation: Any, low: float, monkeypatch: pytest.MonkeyPatch) -> None:
    penalty = URM(features=0.3, hidden=2, low=low, optimizer=OWN)
    made = attrs.evolve(
        experiment(ERM("samples")),
        featurizer=Activated(MLP(widths=(5,)), activation),
        objective=Objective(risk=ERM("samples"), penalty=Total(urm=Scaled(penalty, 0.6))),
    )
    model = build_model(made, made.data(0, None))
    state = first_state(made, model, 3)

    critic = [p.clone().requires_grad_() for p in state.penalty["urm"].parameters.values()]
    oracle = [p.detach().clone().requires_grad_() for p in model.parameters().values()]
    assert [tuple(p.shape) for p in critic[::2]] == [(100, 5), (100, 100), (100, 100), (1, 100)]
    of_network = torch.optim.Adam(oracle, lr=0.02)
    of_critic = torch.optim.Adam(critic, lr=0.03, betas=(0.5, 0.9), weight_decay=0.01)

    def probability(rows: Tensor) -> Tensor:
        """Of being noise."""
        for weight, bias in zip(critic[:-2:2], critic[1:-2:2], strict=True):
            rows = nn.functional.leaky_relu(rows @ weight.T + bias)
        return (rows @ critic[-2].T + critic[-1]).sigmoid().squeeze(1)

    for step in range(3):
        batch = batch_of(step)
        uniform = torch.rand(len(batch.labels), 5, generator=torch.Generator().manual_seed(step))
        monkeypatch.setattr("fishr.methods.urm.uniform_like", lambda seen, drawn=uniform: drawn)
        state, record = advance(model, made, state, batch)

        weight, bias, weight_of_head, bias_of_head = oracle
        z = getattr((batch.inputs @ weight.T + bias).relu(), activation)()
        value = -probability(z).log().mean()
        assert record.terms["urm"].value == pytest.approx(0.6 * value.item(), rel=1e-12)
        risk = cross_entropy(z @ weight_of_head.T + bias_of_head, batch.labels)
        by_network = torch.autograd.grad(risk + 0.6 * value, oracle)
        noise = uniform * 2 - 1 if activation == "tanh" else uniform
        own = -probability(noise).log().mean() - 0.3 * (1 - probability(z.detach())).log().mean()
        for parameters, gradients, optimizer in (
            (oracle, by_network, of_network),
            (critic, torch.autograd.grad(own, critic), of_critic),
        ):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

    found = [*state.parameters.values(), *state.penalty["urm"].parameters.values()]
    assert_close(found, [p.detach() for p in (*oracle, *critic)], **CLOSE)


def test_noise_is_uniform_and_another_one_in_each_step() -> None:
    batch = DomainBatch(torch.zeros(400, 5), torch.zeros(400, dtype=torch.int64), (400,))
    first, again, other = (
        uniform_like(observe(nn.Identity(), nn.Linear(5, 2), batch, seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.min() >= 0, first.max() < 1) == (True, True)
    assert first.mean().item() == pytest.approx(0.5, abs=0.05)


def test_settings_that_domainbed_never_draws_are_refused() -> None:
    hparams = {name: one.default for name, one in METHODS["URM"].ranges_on("PACS").items()}
    for name, value in (("urm", "other"), ("urm_discriminator_label_smoothing", 0.1)):
        with pytest.raises(InputError, match=f"^{name}: got "):
            METHODS["URM"].objective(hparams | {name: value, "weight_decay": 0.0})


def supervised_contrast(rows: Tensor, labels: Tensor) -> Tensor:
    """Sample by sample."""
    total, anchors = torch.zeros(()), 0
    for i, row in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        alike = [j for j in others if labels[j] == labels[i]]
        similar = {j: torch.cosine_similarity(row, rows[j], dim=0).div(0.07).exp() / 2 for j in others}
        if alike:
            anchors += 1
            shares = [similar[j] / (sum(similar.values()) + 1e-5) + 1e-5 for j in alike]
            total = total - torch.stack(shares).log().mean()
    return total / (anchors + 1)


def forward(weights: list[Tensor], rows: Tensor) -> Tensor:
    """Linear layers with ReLU between them."""
    for weight, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        rows = (rows @ weight.T + bias).relu()
    return rows @ weights[-2].T + weights[-1]


@pytest.mark.parametrize("form", ["domainbed", "paper"])
def test_label_and_domain_train_as_torch_does(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    critic = attrs.evolve(ADVERSARY, gradient_penalty=0.0)
    risk = ADRMX(0.9, 0.8, 0.7, 0.6, critic, OWN, form)
    made = attrs.evolve(experiment(risk), featurizer=LabelAndDomain(MLP(widths=(8,))), head=LabelHead())
    model = build_model(made, made.data(0, None))
    state = first_state(made, model, 3)

    network = [p.detach().clone().requires_grad_() for p in model.parameters().values()]
    of_label, of_domain, head = network[:2], network[2:4], network[4:]
    owned = {
        name: [p.clone().requires_grad_() for p in own.parameters.values()]
        for name, own in state.penalty["risk"].items()
    }
    classifiers = [*owned["label_classifier"], *owned["domain_classifier"]]
    optimizers = (
        torch.optim.Adam(owned["discriminator"], lr=0.03, betas=(0.5, 0.9), weight_decay=0.01),
        torch.optim.Adam(classifiers, lr=0.03, betas=(0.5, 0.9), weight_decay=0.01),
        torch.optim.Adam(network, lr=0.02),
    )
    mixed_any = False
    for step in range(6):
        batch, draws = batch_of(step), torch.Generator().manual_seed(step)
        labels, ids = batch.labels, torch.repeat_interleave(torch.arange(3), torch.tensor(batch.sizes))
        rows_of = [(labels == label).nonzero().squeeze(1).tolist() for label in range(4)]
        orders = [torch.randperm(len(rows), generator=draws) for rows in rows_of]
        monkeypatch.setattr("fishr.methods.adrmx.permutations_of", lambda seen, drawn=orders: drawn)
        state, record = advance(model, made, state, batch)

        label, domain = ((batch.inputs @ weight.T + bias).relu() for weight, bias in (of_label, of_domain))
        free = label - domain
        adversarial = cross_entropy(forward(owned["discriminator"], free), ids)
        remixed = torch.zeros(())
        for rows, order in zip(rows_of, orders, strict=True):
            places = order.tolist() if form == "domainbed" else [rows[place] for place in order.tolist()]
            partners = places[1:2] if form == "domainbed" else [j for j in places if ids[j] != ids[places[0]]][:1]
            for j in partners:
                mixed_any = True
                logits = forward(head, (free[places[0]] + domain[j])[None])
                remixed = remixed + cross_entropy(logits, labels[places[:1]]) / 4
        value = (
            cross_entropy(forward(head, label), labels)
            + cross_entropy(forward(owned["label_classifier"], free), labels)
            + 0.9 * cross_entropy(forward(owned["domain_classifier"], domain), ids)
            + 0.8 * remixed
            + 0.7 * (supervised_contrast(label, labels) + supervised_contrast(free, labels))
            - 0.6 * adversarial
        )
        of_turn = (step + 1) % 3 < 2
        assert record.risk == pytest.approx((adversarial if of_turn else value).item(), rel=1e-11)
        by_turn = (owned["discriminator"],) if of_turn else (classifiers, network)
        for parameters in by_turn:
            gradients = torch.autograd.grad(adversarial if of_turn else value, parameters, retain_graph=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        for optimizer in optimizers[:1] if of_turn else optimizers[1:]:
            optimizer.step()

    assert mixed_any
    own = [p for one in state.penalty["risk"].values() for p in one.parameters.values()]
    expected = [p.detach() for p in (*network, *(p for one in owned.values() for p in one))]
    assert_close([*state.parameters.values(), *own], expected, rtol=1e-9, atol=1e-11)


def test_an_odd_number_of_features_is_refused() -> None:
    with pytest.raises(InputError, match="ADRMX: got 5 features, expected an even number"):
        ADRMX().init(Problem.of(nn.Linear(5, 3), 2))


OBJECTIVES = {
    "ADRMX": Objective(risk=ADRMX(adversary=ADVERSARY, optimizer=OWN, form="paper")),
    "DANN": Objective(risk=DANN(adversary=attrs.evolve(ADVERSARY, dropout=0.5))),
    "CDANN of the paper": Objective(risk=CDANN(adversary=attrs.evolve(ADVERSARY, dropout=0.5), form="paper")),
    "URM": Objective(penalty=Total(urm=Scaled(URM(optimizer=OWN), 2.0))),
}


def follow(ranks: Ranks) -> list[dict[str, Tensor]]:
    """All tensors of the last states."""
    torch.set_default_dtype(torch.float64)
    try:
        made = attrs.evolve(experiment(ERM()), featurizer=LabelAndDomain(MLP(widths=(8,))))
        runs = [attrs.evolve(made, objective=objective) for objective in OBJECTIVES.values()]
        events = [[*train(run, ranks=ranks)] for run in runs]
        last = [[event.state for event in of_run if isinstance(event, Stepped)][-1] for of_run in events]
        return [dict(named_tensors((state.parameters, state.penalty))) for state in last]
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_two_ranks_are_one() -> None:
    expected = follow(ALONE)
    for found in on_ranks(2, follow):
        assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_labels_that_are_no_classes_are_refused() -> None:
    draws = torch.Generator().manual_seed(0)
    one, two, three = (Domain(name, torch.randn(6, 4, generator=draws), torch.tensor([0, 1] * 3)) for name in "abc")
    made = attrs.evolve(experiment(CDANN()), loss=BinaryCrossEntropy())
    with pytest.raises(InputError, match="expected class indices"):
        list(train(made, domains=Domains((one, two), (three,), classes=2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adversary(depth=1), "depth: got 1"),
        (lambda: Adversary(steps=0), "steps: got 0"),
        (lambda: Adversary(gradient_penalty=-1.0), "gradient_penalty: got -1.0"),
        (lambda: URM(low=1.0), "low: got 1.0"),
        (lambda: Activated(MLP(), "gelu"), "activation: got 'gelu'"),  # pyright: ignore[reportArgumentType]
        (lambda: DANN(weight=-1.0), "weight: got -1.0"),
        (lambda: CDANN(form="ours"), "form: got 'ours'"),  # pyright: ignore[reportArgumentType]
        (lambda: DANN().init(Problem.of(nn.Sequential(nn.Linear(2, 2)), 2)), "DANN: got a problem of unknown width"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        make()
