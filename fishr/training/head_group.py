"""Runs that are trained together: heads on rows of one table, whose steps and scores are computed for all at once.

Runs of a group may differ in seeds, domains, first weights, dropout, learning rates and weight decay, schedules of
penalties and averages. Each is a run of its own, with its own loop, folder and end: the first one that asks for a step
has it computed for all that are as far, and the others find theirs made. An objective that no program can compute for
several heads, such as one that draws or that trains parameters of its own, is computed for each head alone.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from threading import Lock
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from fishr.data.shared_rows import SharedRows, rows_of
from fishr.errors import one_line
from fishr.mixed_samples import mixes_samples
from fishr.seeding import named_generator
from fishr.training.evaluation import DomainScore, averaged, evaluate
from fishr.training.head_members import (
    Member,
    Samples,
    Stack,
    moments_of_heads,
    of_heads,
    shared_settings,
    weights_of_heads,
)
from fishr.training.head_program import (
    Batch,
    Gradients,
    Program,
    numbers,
    of_some,
    outer_weights,
    step_record,
)
from fishr.training.head_scores import score_heads
from fishr.training.head_updates import updated
from fishr.training.loop import Started, StepFunctions
from fishr.training.optimizers import OptimizerState
from fishr.training.state import TrainingState
from fishr.training.step import NotFinite, StepRecord, advance
from fishr.types import DomainBatch


class HeadGroup:
    """Runs that are trained together; each calls its ``functions`` as if it were alone."""

    def __init__(self) -> None:
        self._heads = dict[int, Member]()
        self._programs = dict[tuple[bool, ...], Program | None]()  # None: these weights are those of no program
        self._stacks = dict[tuple[bool, ...], Stack]()  # of the last step, likewise by the weights that are 0
        self._scores_alone, self._lock = False, Lock()

    def functions(self, run: int) -> StepFunctions:
        """Return the functions of a run, by its number in the group; runs may be in several threads."""

        def locked(function: Callable[..., Any], *given: Any, **options: Any) -> Any:
            with self._lock:
                return function(run, *given, **options)

        return StepFunctions(partial(locked, self._advance), partial(locked, self._evaluate))

    def enter(self, run: int, started: Started) -> None:
        """Take up a run that has started; one with data or modules of another kind trains alone."""
        inputs = [domain.inputs for domain in started.domains.training]
        tables = {id(rows.table) for rows in inputs if isinstance(rows, SharedRows)}
        tables |= {id(self._table(head)) for head in self._heads.values()}
        shared = all(isinstance(rows, SharedRows) for rows in inputs) and len(tables) == 1
        trained = all(parameter.requires_grad for parameter in started.model.parameters().values())
        plain = trained and not started.state.buffers and shared_settings(started.experiment) is not None
        if shared and plain:
            self._heads[run] = Member.of(started)
            # A domain's features depend on its samples together.
            self._scores_alone |= mixes_samples(started.model.featurizer)

    def leave(self, run: int) -> None:
        """Forget a run that has ended."""
        with self._lock:
            self._heads.pop(run, None)
            self._stacks.clear()

    def _advance(self, run: int, *given: Any) -> tuple[TrainingState, StepRecord]:
        """See ``advance``."""
        head, state = self._heads.get(run), given[2]
        if head is None:
            return advance(*given)
        if head.state.parameters is not state.parameters:
            head.made = None
            self._stacks.clear()
        if head.made is None:
            head.state = state
            self._compute(head)
        made, head.made, head.scores = head.made, None, None
        if made is None:
            after, record = self._advance_alone(head, state)
        elif isinstance(made, NotFinite):
            raise made
        else:
            after, record = made
            average = head.experiment.average
            if average is not None:
                after = evolve(after, average=average.update(after.parameters, state.average, after.step))
        head.state = after
        return after, record

    def _advance_alone(self, head: Member, state: TrainingState) -> tuple[TrainingState, StepRecord]:
        first = accumulate(head.counts, initial=0)
        rows = torch.cat([own + start for own, start in zip(head.draw(), first, strict=False)])
        table, sizes = self._table(head), (head.size,) * len(head.counts)
        batch = DomainBatch(table[head.rows[rows]], head.labels[rows].to(table.device), sizes)
        return advance(head.started.model, head.experiment, evolve(state, generator=head.generator.get_state()), batch)

    def _compute(self, head: Member) -> None:
        """Make the step of a head, and of all others that are as far."""
        zero = head.zero()
        if zero not in self._programs:
            self._programs[zero] = Program(head.started.model, head.experiment, zero)
        program = self._programs[zero]
        if program is None:
            return
        heads = self._as_far(head, zero)
        stack = self._stacks.get(zero)
        if stack is None or stack.heads != heads or stack.step != head.state.step:
            stack = Stack.of(heads)
        batch = self._batch(stack.samples)
        generators = [head.generator.get_state() for head in heads]
        try:
            gradients = self._gradients(program, batch, stack)
        # An objective that draws, that trains its own parameters or that a person wrote: each head alone can do it.
        except Exception as error:
            self._programs[zero] = None
            self._say("the steps", error)
            return
        if gradients is None:
            self._programs[zero] = None
            return
        self._stacks = {key: one for key, one in self._stacks.items() if one.step >= stack.step}
        self._stacks[zero], made = self._step(gradients, stack, generators)
        for other, own in zip(heads, made, strict=True):
            other.made = own

    def _as_far(self, head: Member, zero: tuple[bool, ...]) -> tuple[Member, ...]:
        """Return all that one program can compute with a head, whose weights are 0 where said."""
        stack = self._stacks.get(zero)
        # Heads that made the last step together have states that differ in tensors alone.
        last = stack.heads if stack is not None and stack.step == head.state.step else ()
        if head in last and all(other.made is None and other.zero() == zero for other in last):
            return last
        waiting = [other for other in self._heads.values() if other.made is None and other.zero() == zero]
        rest = head.rest()
        return tuple(other for other in waiting if other.rest() == rest)

    def _gradients(self, program: Program, batch: Batch, stack: Stack) -> Gradients | None:
        """Return the gradients of all heads; None where each head alone takes less time."""
        objectives = [head.experiment.objective for head in stack.heads]
        numbers_of = [(*outer_weights(each, stack.step), *numbers(each)) for each in objectives]
        given = torch.tensor(numbers_of, dtype=torch.float64, device=batch.inputs.device)
        arguments = stack.weights, batch, given, stack.penalty
        if not program.tried:
            with warnings.catch_warnings():
                # A function without a rule for several heads takes them one by one, and warns once.
                warnings.simplefilter("error")
                program.gradients(*of_some(slice(1), *arguments), stack.step)
            program.tried = True
            if program.slower_than_alone(stack.weights, batch):
                return None
        return program.gradients(*arguments, stack.step)

    def _step(
        self, gradients: Gradients, stack: Stack, generators: Sequence[Tensor]
    ) -> tuple[Stack, list[tuple[TrainingState, StepRecord] | NotFinite]]:
        """Return all heads after the step; and of each its state, without its average, and record, or its failure."""
        heads = stack.heads
        made = updated(heads, gradients, stack)
        following = Stack(heads, stack.step + 1, made.weights, made.moments, gradients.penalty, stack.samples)
        own_weights, own_moments = weights_of_heads(made.weights), moments_of_heads(made.moments, len(heads))
        own_penalty = of_heads(gradients.penalty, len(heads))
        found = list[tuple[TrainingState, StepRecord] | NotFinite]()
        for h, head in enumerate(heads):
            numbers, losses = gradients.parts[h], gradients.domain_losses[h]
            try:
                record = step_record(head.experiment.objective, stack.step, numbers, losses, made.rates[h])
            except NotFinite as failure:
                found.append(failure)
                continue
            memory = OptimizerState(made.steps[h], own_moments[h])
            after = TrainingState(stack.step + 1, own_weights[h], {}, memory, own_penalty[h], generators[h])
            found.append((after, record))
        return following, found

    def _batch(self, samples: Samples) -> Batch:
        """Return a batch of each head, transformed and with dropout; the generators advance."""
        inputs, labels, seeds = samples.batches()
        heads, sizes = samples.heads, samples.sizes
        if heads[0].experiment.transform is not None:
            outputs, made = heads[0].started.model.outputs, list[DomainBatch]()
            for head, own, other, seed in zip(heads, inputs, labels, seeds, strict=True):
                transform: Any = head.experiment.transform
                made.append(transform(DomainBatch(own, other, sizes), named_generator(seed, "transform"), outputs))
            inputs, labels = (torch.stack(each) for each in zip(*((b.inputs, b.labels) for b in made), strict=True))
            sizes = made[0].sizes
        samples.drop(inputs, seeds)
        return Batch(inputs, labels, sizes, samples.weights)

    def _evaluate(self, run: int, *given: Any, **options: Any) -> tuple[DomainScore, ...]:
        """See ``evaluate``."""
        head, (model, experiment, state, *_) = self._heads.get(run), given
        if head is not None and not self._scores_alone:
            try:
                if experiment.average is not None and state.average is not None:
                    return self._scored([head], [averaged(model, experiment, state).parameters], wide=False)[0]
                if head.scores is None or head.state.parameters is not state.parameters:
                    head.state = state
                    others = [other for other in self._heads.values() if other.state.step == state.step]
                    found = self._scored(others, [other.state.parameters for other in others])
                    for other, scores in zip(others, found, strict=True):
                        other.scores = scores
                if head.scores is not None:
                    return head.scores
            # As for a step.
            except Exception as error:
                self._scores_alone = True
                self._say("the scores", error)
        return evaluate(*given, **options)

    def _say(self, what: str, error: Exception) -> None:
        reason = one_line(f"{type(error).__name__}: {error}")
        print(f"{what} of {len(self._heads)} heads are computed one by one ({reason})", file=sys.stderr)

    def _scored(
        self, heads: Sequence[Member], weights: Sequence[dict[str, Tensor]], wide: bool = True
    ) -> list[tuple[DomainScore, ...]]:
        first, domains = heads[0], [head.started.domains for head in heads]
        return score_heads(first.started.model, first.experiment.loss, weights, domains, wide)

    def _table(self, head: Member) -> Tensor:
        return rows_of(head.started.domains.training[0]).table
