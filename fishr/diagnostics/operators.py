"""Hessians as operators of curvlinops and scipy: their estimators and solvers serve every way of holding one."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from attrs import frozen
from torch import Tensor

from fishr.diagnostics.hessian import Estimate, Hessian
from fishr.diagnostics.sampling import averaged


@frozen
class Estimation:
    """How much is spent where a quantity is estimated, and from which seed.

    Args:
        products: Hessian-vector products of one estimate.
        repeats: independent estimates; their mean is reported, and its standard error. At least 2.
        seed: of everything that is drawn; the global generators are left as they are.
        chunk: samples of one pass through a module whose Hessian is known by products alone, which bounds memory.

    Example:
        >>> Estimation(repeats=8).products
        24
    """

    products: int = 24
    repeats: int = 4
    seed: int = 0
    chunk: int = 256


@contextmanager
def quiet() -> Generator[None]:
    """Without torch's own FutureWarning, set off on first use of curvlinops, and without that of its solver.

    Example:
        >>> with quiet():
        ...     import curvlinops
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=FutureWarning)
        # What the solver left undone is part of the stated error.
        warnings.filterwarnings("ignore", message="CG terminated in", category=RuntimeWarning)
        yield


@contextmanager
def seeded(like: Tensor, seed: int) -> Generator[None]:
    """With torch's global generators, the only ones that curvlinops draws from, set to a seed; restored afterwards.

    Example:
        >>> with seeded(torch.zeros(1), 0):
        ...     first = torch.rand(())
        >>> with seeded(torch.zeros(1), 0):
        ...     first == torch.rand(())
        tensor(True)
    """
    devices = [like.device] if like.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def curvlinops_operator(hessian: Hessian) -> Any:
    """The Hessian as a linear operator of curvlinops.

    Example:
        >>> from fishr.diagnostics.dense_hessian import DenseHessian
        >>> curvlinops_operator(DenseHessian(torch.eye(3))) @ torch.ones(3)
        tensor([1., 1., 1.])
    """
    with quiet():
        from curvlinops._torch_base import PyTorchLinearOperator  # pyright: ignore[reportPrivateUsage]

    def product(_: Any, columns: list[Tensor]) -> list[Tensor]:
        return [hessian.apply(columns[0])]

    members = {"SELF_ADJOINT": True, "dtype": hessian.like.dtype, "device": hessian.like.device, "_matmat": product}
    return type("Operator", (PyTorchLinearOperator,), members)([(hessian.size,)], [(hessian.size,)])


def scipy_operator(apply: Callable[[Tensor], Tensor], size: int, like: Tensor) -> Any:
    """V ↦ H V as a linear operator of scipy, on numpy vectors.

    Example:
        >>> import numpy
        >>> operator = scipy_operator(lambda vectors: 2 * vectors, 3, torch.zeros(1, dtype=torch.float64))
        >>> operator @ numpy.ones(3)
        array([2., 2., 2.])
    """
    from scipy.sparse.linalg import LinearOperator

    dtype = torch.zeros((), dtype=like.dtype).numpy().dtype

    def product(array: Any) -> Any:
        columns = torch.from_numpy(array.astype(dtype, copy=False)).to(like.device).view(size, -1)
        return apply(columns).numpy(force=True).reshape(array.shape)

    return cast(Any, LinearOperator)((size, size), matvec=product, matmat=product, rmatvec=product, dtype=dtype)


def repeated(estimator: Callable[[], Tensor], like: Tensor, estimation: Estimation, route: str) -> Estimate:
    """Return the mean of independent estimates.

    Args:
        estimator: draws from torch's global generators.
        like: on the device that is drawn on.
        estimation: repeats and seed.
        route: what the estimator is.

    Returns:
        Of the estimator's shape, with the error and the draws of ``averaged``.

    Example:
        >>> found = repeated(lambda: torch.randn(100).mean(), torch.zeros(1), Estimation(), "mean of 100")
        >>> found.route, bool(found.value.abs() < 5 * found.error)
        ('mean of 100, seed 0, error: the standard error of 4 draws (twice it covers 95 %)', True)
    """
    with quiet(), seeded(like, estimation.seed):
        drawn = torch.stack([estimator().detach() for _ in range(estimation.repeats)])
    return averaged(drawn, f"{route}, seed {estimation.seed}")
