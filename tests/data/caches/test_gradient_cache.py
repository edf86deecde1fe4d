"""Gradient caches give back the moments of the gradients that they stand for."""

import numpy as np
import pytest
import torch
from cases import oracle_moments
from torch import nn

from fishr.data.caches import Section, open_gradients
from fishr.data.caches.domain_writing import write_domains
from fishr.data.caches.hdf5 import save_tree
from fishr.errors import InputError
from fishr.losses import CrossEntropy, loss_deltas
from fishr.types import Layout

SIZES = (20_000, 9)


def _write(path, form, head, parts, columns, part_rows, summary=None):
    layout = Layout.of(head)
    shapes = {name: np.array(shape) for name, shape in zip(layout.names, layout.shapes, strict=True)}
    write_domains(
        path,
        "fishr-gradients",
        {"form": form},
        {"text": "", "outputs": 2},
        [Section(f"domain {i}", "training", n) for i, n in enumerate(SIZES)],
        lambda domain, start, stop: {name: column[start:stop] for name, column in parts[domain].items()},
        columns,
        part_rows,
        summary=summary,
        more={"form": form, "layout": {"names": layout.names, "shapes": shapes}},
    )


@pytest.mark.parametrize("bias", [True, False])
def test_moments_of_factors_are_those_of_the_gradients(tmp_path, bias):
    """Over more rows than are read at a time, and with a mean far from zero."""
    head = nn.Linear(3, 2, bias=bias).double()
    parts, features, labels = [], [], []
    for n in SIZES:
        z, y = torch.randn(n, 3).double() + 2, torch.randint(2, (n,))
        deltas = loss_deltas(CrossEntropy(), head(z), y).detach()
        columns = {"features": z, "deltas": deltas, "labels": y, "ids": torch.arange(n)}
        parts.append({name: column.numpy() for name, column in columns.items()})
        features.append(z)
        labels.append(y)
    path = tmp_path / "gradients.h5"
    _write(path, "factors", head, parts, ("features", "deltas", "labels", "ids"), part_rows=4096)
    found = open_gradients(path).moments()
    # The oracle goes sample by sample: the small domain in full, the large one through its outer products.
    small = oracle_moments(head, features[1], labels[1], SIZES[1:], CrossEntropy())
    torch.testing.assert_close(found.mean[1], small.mean[0], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found.variance[1], small.variance[0], atol=1e-12, rtol=1e-10)
    deltas = torch.from_numpy(parts[0]["deltas"])
    gradients = torch.cat([torch.einsum("nc,nf->ncf", deltas, features[0]).flatten(1), *([deltas] if bias else [])], 1)
    torch.testing.assert_close(found.mean[0], gradients.mean(0), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found.variance[0], gradients.var(0, correction=0), atol=1e-12, rtol=1e-10)
    assert (found.count, found.layout) == (SIZES, Layout.of(head))


def test_stored_moments_come_back(tmp_path):
    head = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    path, size = tmp_path / "gradients.h5", Layout.of(head).size
    values = [np.full(size, 1.0 + i) for i in range(2)]

    def summary(parts):
        total = sum(len(part["ids"]) for part in parts)
        index = SIZES.index(total)
        return {"count": total, "mean": values[index], "variance": 2 * values[index]}

    _write(path, "moments", head, [{"ids": np.arange(n)} for n in SIZES], (), 5000, summary)
    cache = open_gradients(path)
    assert [section.rows for section in cache.sections] == list(SIZES)
    found = cache.moments()
    assert torch.equal(found.mean, torch.from_numpy(np.stack(values)))
    assert torch.equal(found.variance, 2 * found.mean)
    assert found.layout == Layout.of(head)
    assert cache.domain(0) == {}


def test_an_unknown_form_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    save_tree(path, "fishr-gradients", {"provenance": {}, "key": "", "head": {}, "form": "sums"})
    with pytest.raises(InputError, match="got gradients of form 'sums', expected one of factors, moments, per-sample"):
        open_gradients(path)
    save_tree(path, "fishr-gradients", {"provenance": {}, "key": ""}, replace=True)
    with pytest.raises(InputError, match=r"damaged .*it lacks head"):
        open_gradients(path)
