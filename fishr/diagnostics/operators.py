"""Hessians as operators of curvlinops and scipy, for their estimators and solvers."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from fishr.diagnostics.hessian import Eigenpairs, Hessian
from fishr.diagnostics.uncertainty import Estimate, Estimation, averaged
from fishr.seeding import seeded


@contextmanager
def quiet() -> Generator[None]:
    """Silence torch's warning on the first use of curvlinops, and the warning of its unfinished solver."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*")
        # The stated error covers an unfinished solve.
        warnings.filterwarnings("ignore", message="CG terminated in", category=RuntimeWarning)
        yield


def repeated(estimator: Callable[[], Tensor], like: Tensor, estimation: Estimation, route: str) -> Estimate:
    """Return the mean of independent estimates, each drawn from torch's global generators."""
    with quiet(), seeded(estimation.seed, like.device):
        drawn = torch.stack([estimator().detach() for _ in range(estimation.repeats)])
    return averaged(drawn, f"{route}, seed {estimation.seed}")


def curvlinops_operator(hessian: Hessian) -> Any:
    with quiet():
        from curvlinops._torch_base import PyTorchLinearOperator  # pyright: ignore[reportPrivateUsage]

    def product(_: Any, columns: list[Tensor]) -> list[Tensor]:
        return [hessian.apply(columns[0])]

    members = {"SELF_ADJOINT": True, "dtype": hessian.like.dtype, "device": hessian.like.device, "_matmat": product}
    return type("Operator", (PyTorchLinearOperator,), members)([(hessian.size,)], [(hessian.size,)])


def scipy_operator(apply: Callable[[Tensor], Tensor], size: int, like: Tensor) -> Any:
    """Return V ↦ H V on numpy vectors of the type of ``like``."""
    from scipy.sparse.linalg import LinearOperator

    dtype = torch.zeros((), dtype=like.dtype).numpy().dtype

    def product(array: Any) -> Any:
        columns = torch.from_numpy(array.astype(dtype, copy=False)).to(like.device).view(size, -1)
        return apply(columns).numpy(force=True).reshape(array.shape)

    return cast(Any, LinearOperator)((size, size), matvec=product, matmat=product, rmatvec=product, dtype=dtype)


def largest_eigenpairs(
    apply: Callable[[Tensor], Tensor], size: int, like: Tensor, rank: int, route: str, tolerance: float = 0.0
) -> Eigenpairs:
    """Return the ``rank`` largest eigenpairs by scipy's ``eigsh``, from a fixed start; tolerance 0 is the type's."""
    import numpy
    from scipy.sparse.linalg import eigsh
    from threadpoolctl import threadpool_limits

    start = numpy.random.default_rng(0).standard_normal(size)
    # ARPACK's own work is on short vectors: threads of numpy's BLAS would only take the cores from torch's products.
    with quiet(), threadpool_limits(1, user_api="blas"):
        operator = scipy_operator(apply, size, like)
        found = cast(Any, eigsh)(
            operator, k=rank, which="LA", v0=start.astype(operator.dtype), ncv=min(size, 3 * rank + 1), tol=tolerance
        )
    values, vectors = (torch.from_numpy(part[..., ::-1].copy()).to(like.device) for part in found)
    residuals = torch.linalg.vector_norm(apply(vectors) - vectors * values, dim=0)
    return Eigenpairs(values, vectors, residuals, f"scipy eigsh on {route}")
