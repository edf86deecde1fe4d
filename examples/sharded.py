"""A featurizer sharded over processes by FSDP2, an exact penalty, and a checkpoint of both.

Run: torchrun --nproc-per-node 2 sharded.py FOLDER
"""

import sys
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import fishr

penalty = fishr.Fishr(ema=0.5, over_parameters="sum")
domains = fishr.data.ColoredDigits()(seed=0, data_dir=None)


def model_of(ranks: fishr.Ranks) -> tuple[nn.Module, nn.Module, Any]:
    """Return a sharded featurizer, a head that is whole on each process, and the penalty's first state."""
    torch.manual_seed(0)
    featurizer, head = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU()), nn.Linear(64, 2)
    if not ranks.alone:
        fully_shard(featurizer, mesh=init_device_mesh("cpu", (ranks.count,)))
    return featurizer, head, penalty.init(fishr.Problem.of(head, domains=2))


def step(featurizer: nn.Module, head: nn.Module, state: Any, ranks: fishr.Ranks) -> tuple[Any, float, float]:
    """Update the weights and return the penalty's next state, the risk and the penalty."""
    batch = fishr.data.FullBatch().draw(domains.training, torch.Generator(), ranks)
    parameters = [*featurizer.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    seen = fishr.observe(featurizer, head, batch, ranks=ranks)
    value, state = penalty(seen, state, step=0)
    optimizer.zero_grad()
    (seen.domain_losses.mean() + 10 * value).backward()  # FSDP averages the featurizer's gradients here
    fishr.average_gradients(head, ranks)
    optimizer.step()
    return state, seen.domain_losses.mean().item(), value.item()


def checkpoint_of(featurizer: nn.Module, head: nn.Module, state: Any) -> dict[str, Any]:
    """Return what a checkpoint holds."""
    model = {"featurizer": get_model_state_dict(featurizer), "head": head.state_dict()}
    return {**model, "penalty": fishr.state_dict(state)}


with fishr.joined("cpu") as (ranks, device):
    featurizer, head, state = model_of(ranks)
    for _ in range(10):
        state, _, _ = step(featurizer, head, state, ranks)
    dcp.save(checkpoint_of(featurizer, head, state), checkpoint_id=sys.argv[1])
    on = step(featurizer, head, state, ranks)

    featurizer, head, state = model_of(ranks)
    saved = checkpoint_of(featurizer, head, state)
    dcp.load(saved, checkpoint_id=sys.argv[1])
    set_model_state_dict(featurizer, saved["featurizer"])
    head.load_state_dict(saved["head"])
    state = fishr.load_state(penalty, fishr.Problem.of(head, domains=2), saved["penalty"])
    again = step(featurizer, head, state, ranks)
    if ranks.number == 0:
        print(f"step 10: risk {on[1]:.6f}, penalty {on[2]:.6f}; from the checkpoint: {again[1]:.6f}, {again[2]:.6f}")
