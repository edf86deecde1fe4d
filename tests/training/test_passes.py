"""Passes of each domain alone: batch normalization against a slow loop, and which methods of DomainBed have them."""

import pytest
import torch
from attrs import evolve
from slow_steps import ByHand, batch_of, build, check, experiment, trained
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.methods import CORAL, GroupDRO
from fishr.penalties import Scaled, Total
from fishr.protocols import colored_digits
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.training import Compute, Objective, advance, explain_objective
from fishr.training.state import first_state


@pytest.mark.parametrize("sizes", [(4, 5, 6), (4, 0, 11)])
def test_each_domain_has_statistics_of_its_own(sizes: tuple[int, ...]) -> None:
    """They normalize it, and move the running ones in turn; risk and penalty compare the domains."""
    objective = Objective(risk=GroupDRO(eta=0.5), penalty=Total(coral=Scaled(CORAL(), 0.3)), l2=0.01)
    made = experiment(None, objective=objective, passes="domain")
    hand, log_weights = ByHand(made), torch.zeros(3, dtype=torch.float64)
    model = build(made)
    state = first_state(made, model, 3)
    for step in range(3):
        batch = evolve(batch_of(step), sizes=sizes)
        state, _ = advance(model, made, state, batch)
        risks, domains = dict[int, Tensor](), list[Tensor]()
        for k, (inputs, labels) in enumerate(zip(batch.inputs.split(sizes), batch.labels.split(sizes), strict=True)):
            if len(inputs):
                domains.append(hand.module["featurizer"](inputs))
                risks[k] = nn.functional.cross_entropy(hand.module["head"](domains[-1]), labels)
                log_weights[k] += 0.5 * risks[k].detach()
        shares = log_weights[list(risks)].softmax(0)
        pairs = [(one, other) for i, one in enumerate(domains) for other in domains[:i]]
        gaps = [(a.mean(0) - b.mean(0)).square().mean() + (a.T.cov() - b.T.cov()).square().mean() for a, b in pairs]
        decay = torch.stack([p.square().sum() for p in hand.module.parameters()]).sum()
        loss = shares @ torch.stack([*risks.values()]) + 0.3 * sum(gaps) / len(gaps) + 0.01 * decay
        hand.update([*torch.autograd.grad(loss, list(hand.module.parameters()))])
    check(hand, state)
    if 0 not in sizes:
        pooled, _ = trained(evolve(made, passes=None), 3)
        assert not torch.allclose(pooled.parameters["head.weight"], state.parameters["head.weight"])


def test_micro_batches_are_refused() -> None:
    with pytest.raises(InputError, match='passes: got "domain" with 2 micro-batches, expected 1'):
        experiment(None, passes="domain", compute=Compute(micro_batches=2))


def test_explain_names_them() -> None:
    made = evolve(colored_digits("erm"), passes="domain")
    assert "\npasses: one of each domain, whose samples" in str(explain_objective(made))


def test_methods_pass_as_in_domainbed_where_batch_normalization_is_trained() -> None:
    """Descents by domain measure domains one by one in any case."""
    alone = {"CORAL", "MMD", "CausIRL_CORAL", "CausIRL_MMD", "GroupDRO", "EQRM", "Mixup", "MTL"}
    for name in (*alone, "ERM", "Fishr", "IRM", "RDM", "ANDMask"):
        for protocol in ("domainbed-2021", "domainbed-2024"):
            job = Job("PACS", name, (0,), 0, 0, Settings(protocol=protocol))
            assert (job.experiment().passes == "domain") == (name in alone and protocol == "domainbed-2024")
