"""Fishr as an algorithm of DomainBed, for any classifier and with the current BackPACK.

Put this file where Python finds it and append ``from domainbed_fishr import Fishr`` to domainbed/algorithms.py. Then
``python -m domainbed.scripts.train --algorithm Fishr …`` runs it, with the hyper-parameters of DomainBed's own Fishr.
"""

from typing import Any

import torch
from domainbed.algorithms import ERM

import fishr


class Fishr(ERM):
    """Empirical risk plus the penalty, whose moving average is in the checkpoint."""

    def __init__(self, input_shape: Any, num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.matched = fishr.PenaltyModule(fishr.Fishr(ema=hparams["ema"]))

    def update(self, minibatches: Any, unlabeled: Any = None) -> dict[str, float]:
        inputs, labels = map(torch.cat, zip(*minibatches, strict=True))
        batch = fishr.DomainBatch(inputs, labels, sizes=[len(y) for _, y in minibatches])
        seen = fishr.observe(self.featurizer, self.classifier, batch)
        step, warm_up = self.matched.step, self.hparams["penalty_anneal_iters"]
        risk, penalty = seen.losses.mean(), self.matched(seen)
        loss = risk + (self.hparams["lambda"] if step >= warm_up else 0.0) * penalty
        if step == warm_up:
            self.optimizer.state.clear()  # DomainBed starts a new optimizer when the warm-up ends
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item(), "nll": risk.item(), "penalty": penalty.item()}
