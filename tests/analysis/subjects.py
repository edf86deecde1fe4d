"""Subjects with fewer domains than the one they are made of."""

from fishr.analysis import Subject
from fishr.data import Domain


def part(subject, indices, splits=None):
    """Some of a subject's domains, in this order; without its network and trajectory."""
    made = [Domain(subject.domains[i], *subject.seen.domain_samples[i]) for i in indices]
    splits = splits or tuple(subject.splits[i] for i in indices)
    return Subject.from_domains(subject.name, subject.seen.head, subject.seen.loss, made, splits, source=subject.source)
