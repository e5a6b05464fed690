"""The orthogonalization of a batch of matrices, as a value."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from jaxopt_tour._types import Array, Float
from jaxopt_tour.coefficients import CoefficientsLike
from jaxopt_tour.orthogonalization.options import Options
from jaxopt_tour.orthogonalization.plan import PLATFORMS, Group, Key, Matrices, plan_groups
from jaxopt_tour.orthogonalization.run import on_lowered_platform, run_groups

#: What `orthogonalizer=` takes: a value, or coefficients with all other options at their defaults.
OrthogonalizerLike = Options | CoefficientsLike


@dataclasses.dataclass(frozen=True)
class Orthogonalizer(Options):
    """Brings every singular value of a matrix near 1: `U S V^T -> U p(S / |S|) V^T`.

    A frozen value, checked when it is made; call it on a batch of matrices, or pass it as `orthogonalizer=`. The
    result does not depend on the size of the matrix (at `eps=0`), and zero stays zero. What it does to given
    parameters on a given platform is a plan: `print(jt.plan(params, orthogonalizer=..., platform="tpu"))`.

    Args:
        coefficients: the function of the singular values, by name or as a value from `coefficients`,
            or one polynomial (a, b, c) per step. `"auto"`: two rational functions on CPUs from 128 rows on, five
            Polar Express quintics elsewhere; `"fast"`: fewer operations, less exact; `"keller_jordan"`,
            `"polar_express"`, `"zolotarev"`, `"cans"`, `"you"`, `"modula"`, `"turbo"`, `"cubic"`;
            `"exact"`: the polar factor by SVD.
        steps: number of steps, for coefficients given by the name of a generator, such as `"polar_express"`. None:
            their default.
        form: `"standard"` iterates on X, `"gram"` on X X^T; `"auto"` takes the one with fewer operations at the
            matrix's shape where its rounding is harmless in `dtype`. Inverses have the Gram form alone; under
            `"standard"` the polynomials that replace them run.
        dtype: of the products, such as `"bfloat16"`. None: float32 on CPUs, float16 on GPUs, bfloat16 on TPUs, and
            float64 for matrices of float64. Products of half precision are summed in float32; results keep the dtype of
            their matrices.
        eps: added to the prescaling norm, in the units of the matrix. Keller Jordan's Muon has 1e-7, Optax's 1e-8. Any
            eps > 0 makes small gradients count less. Not used by `"exact"`.
        symmetric: how products that are known to be symmetric are computed: `"plain"`, `"blocks"` (half of the
            blocks, mirrored), or `"auto"`: blocks on CPUs from 1,024 rows on.
        grouping: `"by_shape"` processes matrices of one shape in one stack, in the Gram form those of one short side;
            `"none"` every parameter by itself; `"auto"`: by shape, and on CPUs in stacks of equal length, with few
            small matrices separate.

    Raises:
        ValueError: an option is not one of those named above.

    Example:
        >>> import jax, jax.numpy as jnp, jaxopt_tour as jt
        >>> x = jax.random.normal(jax.random.key(0), (3, 64, 128))
        >>> o = jt.Orthogonalizer("polar_express", steps=8)(x)
        >>> bool(jnp.abs(jnp.linalg.svd(o, compute_uv=False) - 1).max() < 0.01)
        True
    """

    def __call__(self, x: Float[Array, "*batch m n"]) -> Float[Array, "*batch m n"]:
        """Orthogonalize a batch of real matrices, wide or tall.

        Args:
            x: matrices of a real floating dtype.

        Returns:
            Matrices of the shape and dtype of `x`, with singular values near 1.

        Raises:
            ValueError: `x` is not a batch of real floating matrices.
        """
        if getattr(x, "ndim", 0) < 2 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                "x must be real floating matrices of shape (..., m, n), got "
                f"{getattr(x, 'dtype', type(x).__name__)}{list(getattr(x, 'shape', ()))}. If this came from "
                "optax.inject_hyperparams, which calls every callable argument: list 'orthogonalizer' in static_args."
            )
        if isinstance(x, jax.core.Tracer) or not self.fixed_eps:
            return _orthogonalize(self, x)
        return _compiled(self, x)  # one program, for the platform of x


def as_orthogonalizer(orthogonalizer: OrthogonalizerLike) -> Orthogonalizer:
    """The value, from a value or from coefficients.

    Raises:
        ValueError: it is neither; names of coefficients are listed.
    """
    if isinstance(orthogonalizer, Orthogonalizer):
        return orthogonalizer
    try:
        return Orthogonalizer(orthogonalizer)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"orthogonalizer: {error}") from None


def orthogonalize(
    x: Float[Array, "*batch m n"], orthogonalizer: OrthogonalizerLike = "auto"
) -> Float[Array, "*batch m n"]:
    """Bring every singular value of every matrix near 1: `as_orthogonalizer(orthogonalizer)(x)`.

    Args:
        x: a batch of real matrices, wide or tall.
        orthogonalizer: an `Orthogonalizer`, or coefficients by name or value.

    Returns:
        Matrices of the shape and dtype of `x`.

    Raises:
        ValueError: `x` is not a batch of real floating matrices, or the orthogonalizer is not one.
    """
    return as_orthogonalizer(orthogonalizer)(x)


def _orthogonalize(orthogonalizer: Orthogonalizer, x: Array) -> Array:
    if x.size == 0:
        return x
    key, batch = Key("x", 0), math.prod(x.shape[:-2])
    matrices = Matrices(batch, x.shape[-2], x.shape[-1], str(x.dtype))
    plans = {platform: plan_groups(orthogonalizer, {key: matrices}, platform) for platform in PLATFORMS}

    def run(groups: tuple[Group, ...], x: Array, eps: Array | float) -> Array:
        pieces = {key: x.reshape(batch, *x.shape[-2:])}
        return run_groups(groups, pieces, eps)[key].reshape(x.shape)

    if orthogonalizer.fixed_eps:
        return on_lowered_platform(plans, lambda groups, x: run(groups, x, orthogonalizer.eps), x)
    return on_lowered_platform(plans, run, x, jnp.asarray(orthogonalizer.eps))


_compiled = functools.partial(jax.jit, static_argnums=0)(_orthogonalize)
