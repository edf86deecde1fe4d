"""A penalty in the Trainer of Hugging Face, on samples of interleaved domains.

Run: python with_trainer.py 10
Then ``python with_trainer.py 20`` trains ten more steps, with the bits of a run of twenty.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainerCallback, TrainingArguments

import fishr


class Matched(TrainerCallback):
    """Saves a penalty and its state in each checkpoint."""

    def __init__(self, penalty: fishr.Penalty) -> None:
        self.module = fishr.PenaltyModule(penalty)

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **others: Any) -> None:
        torch.save(self.module.state_dict(), self.path(args, state))

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **others: Any) -> None:
        if state.global_step:  # resumed
            self.module.load_state_dict(torch.load(self.path(args, state)))

    def path(self, args: TrainingArguments, state: Any) -> Path:
        return Path(args.output_dir, f"checkpoint-{state.global_step}", "penalty.pt")


class DomainTrainer(Trainer):
    """A Trainer whose loss is the risk and a penalty on the gradients of the model's classifier."""

    def __init__(self, penalty: fishr.Penalty, domains: int, **options: Any) -> None:
        self.matched, self.domains = Matched(penalty), domains
        super().__init__(callbacks=[self.matched], **options)

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *arguments: Any, **options: Any) -> Any:
        domains = inputs.pop("domain")
        if not model.training:
            return super().compute_loss(model, inputs, *arguments, **options)
        labels = inputs.pop("labels")
        batch = fishr.DomainBatch.of(inputs, labels, domains, number=self.domains)
        seen = fishr.observe(lambda images: model.resnet(**images).pooler_output.flatten(1), model.classifier, batch)
        return seen.domain_losses.mean() + self.matched.module(seen)


torch.manual_seed(0)
domains = fishr.data.ColoredDigits(copies=1)(seed=0, data_dir=None).training
samples = [
    {"pixel_values": image, "labels": label, "domain": k}
    for k, domain in enumerate(domains)
    for image, label in zip(domain.inputs, domain.labels.long(), strict=True)
]
sizes = {"embedding_size": 8, "hidden_sizes": [16], "depths": [1], "layer_type": "basic"}
model = ResNetForImageClassification(ResNetConfig(num_channels=2, num_labels=2, **sizes))
options = TrainingArguments(
    "trainer",
    max_steps=int(sys.argv[1]),
    save_steps=10,
    per_device_train_batch_size=64,
    lr_scheduler_type="constant",
    remove_unused_columns=False,  # keeps "domain", which is no argument of the model
)
penalty = fishr.Scaled(fishr.Fishr(ema=0.95), fishr.StepSchedule(at=5, before=0.0, after=1000.0))
trainer = DomainTrainer(penalty, len(domains), model=model, args=options, train_dataset=samples)
trainer.train(resume_from_checkpoint=any(Path("trainer").glob("checkpoint-*")))
