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
        self.penalty, self.step, self.state, self.saved = fishr.Fishr(ema=hparams["ema"]), 0, None, None

    def update(self, minibatches: Any, unlabeled: Any = None) -> dict[str, float]:
        inputs, labels = map(torch.cat, zip(*minibatches, strict=True))
        batch = fishr.DomainBatch(inputs, labels, sizes=[len(y) for _, y in minibatches])
        if self.state is None:  # here, because DomainBed moves the network to its device after the constructor
            problem = fishr.Problem.of(self.classifier, batch.domains)
            self.state = self.penalty.init(problem)
            if self.saved is not None:
                self.state = fishr.load_state(self.penalty, problem, self.saved)
        seen = fishr.observe(self.featurizer, self.classifier, batch)
        value, self.state = self.penalty(seen, self.state, self.step)
        risk, warm_up = seen.losses.mean(), self.hparams["penalty_anneal_iters"]
        loss = risk + (self.hparams["lambda"] if self.step >= warm_up else 0.0) * value
        if self.step == warm_up:
            self.optimizer.state.clear()  # DomainBed starts a new optimizer when the warm-up ends
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return {"loss": loss.item(), "nll": risk.item(), "penalty": value.item()}

    def get_extra_state(self) -> Any:
        return {"step": self.step, "penalty": self.saved if self.state is None else fishr.state_dict(self.state)}

    def set_extra_state(self, saved: Any) -> None:
        self.step, self.saved, self.state = saved["step"], saved["penalty"], None
