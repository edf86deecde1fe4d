"""Hessians as operators of curvlinops and scipy, for their estimators and solvers."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from fishr.diagnostics.hessian import Eigenpairs, Hessian
from fishr.diagnostics.krylov import lanczos_quadratures
from fishr.diagnostics.uncertainty import Estimate, Estimation, averaged
from fishr.seeding import seeded

# Products that find the size of the largest eigenvalue, and the least that it counts as.
_FIRST, _LEAST = 4, 1e-30


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
    apply: Callable[[Tensor], Tensor],
    size: int,
    like: Tensor,
    rank: int,
    route: str,
    tolerance: float = 0.0,
    rough: Callable[[Tensor], Tensor] | None = None,
) -> Eigenpairs:
    """Return the ``rank`` largest eigenpairs by scipy's ``eigsh``, from a fixed start."""
    # Residuals are at most about `tolerance` times the largest eigenvalue; 0 is the type's precision. `rough` has the
    # same products in float32: it iterates, and `apply` gives the values and residuals.
    import numpy
    from scipy.sparse.linalg import eigsh
    from threadpoolctl import threadpool_limits

    draft, own = (apply, like) if rough is None else (rough, like.float())
    start = numpy.random.default_rng(0).standard_normal(size).astype(torch.zeros((), dtype=own.dtype).numpy().dtype)
    shift = 0.0
    if tolerance:
        # ARPACK's tolerance is relative to each eigenvalue, which may be zero. A shift of about the largest makes it
        # relative to that.
        first = torch.from_numpy(start).to(own.device).unsqueeze(1)
        nodes, _ = lanczos_quadratures(draft, first / torch.linalg.vector_norm(first), min(size, _FIRST))
        shift = max(float(nodes.abs().max()), _LEAST)
    # ARPACK's own work is on short vectors: threads of numpy's BLAS would only take the cores from torch's products.
    with quiet(), threadpool_limits(1, user_api="blas"):
        operator = scipy_operator(lambda vectors: draft(vectors) + shift * vectors, size, own)
        options = {"which": "LA", "v0": start, "ncv": min(size, 3 * rank + 1), "tol": tolerance / 2}
        _, found = cast(Any, eigsh)(operator, k=rank, **options)
    basis = torch.linalg.qr(torch.from_numpy(found).to(like)).Q
    images = apply(basis)
    projected = basis.T @ images
    values, turn = (part.flip(-1) for part in torch.linalg.eigh((projected + projected.T) / 2))
    residuals = torch.linalg.vector_norm(images @ turn - basis @ turn * values, dim=0)
    return Eigenpairs(values, basis @ turn, residuals, f"scipy eigsh on {route}")
