"""Problems in one matrix W (fan_in, fan_out) whose optimum is known: least squares, a quadratic, softmax regression.

Their data are drawn once, with NumPy and seed 0. A run's seed decides its first weights, `W_0 ~ N(0, 1 / fan_in)`,
and its batches. What is measured is the exact gap to the optimum on all data, as a share of where runs start.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_tour._checks import check_choice
from jaxopt_tour._types import Array, Tree
from jaxopt_tour.problems.workloads import Data, Workload
from jaxopt_tour.routing.axes import MatrixAxes

#: Rows of the data, and how many runs are one program: the tuning and the reading of the laboratory fill it.
EXAMPLES: Final = 1024
SIDE_BY_SIDE: Final = 10

#: Standard deviation of the noise, as a share of that of the signal: of the first output and of the last.
NOISE: Final = (0.1, 1.0)

#: Weight of the ridge of softmax regression, which makes its optimum finite and unique.
RIDGE: Final = 1e-3

#: Parameters are one matrix, fan-in first.
ROUTING: Final = {"w": MatrixAxes(0, 1)}

CLASSES: Final = ("balanced", "zipf")


def power_law(size: int, exponent: float) -> np.ndarray:
    """`lambda_i = i^-exponent`, i = 1 ... size: the largest is 1, all are where the exponent is 0."""
    return np.arange(1, size + 1, dtype=np.float64) ** -exponent


def rotation(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random orthogonal matrix, uniformly distributed (Mezzadri 2007, https://arxiv.org/abs/math-ph/0609050)."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diag(r))


def _root(size: int, exponent: float, aligned: bool, rng: np.random.Generator) -> np.ndarray:
    """R of `Q = R^T R = V diag(lambda) V^T`; V is the identity where the axes are those of the coordinates."""
    v = np.eye(size) if aligned else rotation(size, rng)
    return np.sqrt(power_law(size, exponent))[:, None] * v.T


def _fresh(fan_in: int, fan_out: int) -> Callable[[Array], Tree]:
    return lambda key: {"w": jax.random.normal(key, (fan_in, fan_out)) / fan_in**0.5}


def _single_precision(data: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(value, np.int32 if np.issubdtype(np.asarray(value).dtype, np.integer) else np.float32)
        for name, value in data.items()
    }


def _quadratic(params: Tree, data: Data) -> Array:
    """`1/2 |R (W - W*)|_F^2`: no difference of large numbers, so single precision keeps a small gap."""
    return 0.5 * jnp.sum(jnp.square(data["root"] @ (params["w"] - data["optimum"])))


def _mean_start(root: np.ndarray, optimum: np.ndarray) -> float:
    """The mean of `1/2 |R (W_0 - W*)|_F^2` over `W_0 ~ N(0, 1 / fan_in)`."""
    fan_in, fan_out = optimum.shape
    return 0.5 * (float(np.sum((root @ optimum) ** 2)) + fan_out / fan_in * float(np.sum(root**2)))


def _check_batch(batch: int | None, examples: int) -> None:
    if batch is not None and not 1 <= batch <= examples:
        raise ValueError(f"batch must be None (all {examples} examples) or 1 <= batch <= {examples}, got {batch!r}")


def _batch_text(batch: int | None, examples: int) -> str:
    return f"all {examples} examples" if batch is None else f"{batch} of {examples} examples"


@functools.cache
def matrix_quadratic(
    exponent: float = 1.0,
    *,
    aligned: bool = False,
    uneven: bool = False,
    fan_in: int = 64,
    fan_out: int = 64,
    target: float = 1e-3,
) -> Workload:
    """`f(W) = 1/2 tr(W^T Q W)`, with eigenvalues `i^-exponent` of Q; its optimum is `f(0) = 0`.

    Every column of W is a problem of its own with the same Hessian Q: what couples them is the optimizer alone.

    Args:
        exponent: of the spectrum: the condition number is `fan_in^exponent`.
        aligned: whether Q is diagonal. Else its eigenvectors are a random rotation of the coordinates. SGD and Muon,
            which turn with the coordinates, cannot tell the two apart; rules that work entry by entry can.
        uneven: whether W_0 is longer along some directions of the outputs than along others: `W_0 diag(1/j) V^T` with
            a random rotation V in place of the even W_0. A rule whose steps have one length along all directions is
            made for the even one.
        fan_in: rows of W.
        fan_out: columns of W.
        target: share of the mean starting value to reach.
    """
    lengths = power_law(fan_out, 1.0 if uneven else 0.0)
    outward = jnp.asarray(lengths[:, None] * rotation(fan_out, np.random.default_rng(1)).T, jnp.float32)
    even = _fresh(fan_in, fan_out)

    @functools.cache
    def data() -> Data:
        root = _root(fan_in, exponent, aligned, np.random.default_rng(0))
        optimum = np.zeros((fan_in, fan_out))
        start = _mean_start(root, optimum) * float(np.mean(lengths**2))
        return _single_precision({"root": root, "optimum": optimum, "start": start})

    return Workload(
        name=f"quadratic-{exponent:g}" + ("-aligned" if aligned else "") + ("-uneven" if uneven else ""),
        title=f"matrix quadratic, spectrum exponent {exponent:g}"
        + (", aligned" if aligned else "")
        + (", uneven start" if uneven else ""),
        data=data,
        init=(lambda key: {"w": even(key)["w"] @ outward}) if uneven else even,
        draw=lambda data, key: data,
        loss=_quadratic,
        measure=lambda params, data: _quadratic(params, data) / data["start"],
        measured="value as a share of the mean starting value",
        target=target,
        steps=100,
        batch_text="exact gradient",
        side_by_side=SIDE_BY_SIDE,
        routing=ROUTING,
    )


@functools.cache
def linear_regression(
    exponent: float = 1.0,
    batch: int | None = None,
    *,
    fan_in: int = 64,
    fan_out: int = 32,
    examples: int = EXAMPLES,
    target: float = 1e-2,
) -> Workload:
    """`f(W) = 1/(2 N) |X W - Y|_F^2` for `Y = X W* + E diag(sigma)`: several outputs, each with noise of its own.

    `X^T X / N = V diag(i^-exponent) V^T` with a random rotation V, exactly; `sigma_j` grows geometrically over the
    outputs, from 0.1 to 1 times the standard deviation of the signal (`NOISE`). The noise is made orthogonal to
    the features, `X^T E = 0`, so the least-squares solution is W* itself, and

        `f(W) - f(W*) = 1/2 tr((W - W*)^T (X^T X / N) (W - W*))`

    Noise acts through batches alone. Under the full batch only `W_0 - W*` matters: other first weights are as good as
    another W*.

    Args:
        exponent: of the features' spectrum.
        batch: examples of a step, drawn with replacement; None: all, as the same quadratic without noise.
        fan_in: features.
        fan_out: outputs.
        examples: N.
        target: share of the mean starting gap to reach.

    Raises:
        ValueError: a batch that is no part of the examples, or fewer examples than noise and features need.
    """
    if examples < fan_in + fan_out:
        raise ValueError(f"examples must be at least fan_in + fan_out = {fan_in + fan_out}, got {examples!r}")
    _check_batch(batch, examples)

    @functools.cache
    def data() -> Data:
        rng = np.random.default_rng(0)
        root = _root(fan_in, exponent, False, rng)
        directions = np.linalg.qr(rng.standard_normal((examples, fan_in)))[0]  # (N, fan_in), orthonormal
        x = examples**0.5 * directions @ root
        optimum = rng.standard_normal((fan_in, fan_out)) / fan_in**0.5
        noise = rng.standard_normal((examples, fan_out))
        noise -= directions @ (directions.T @ noise)
        noise *= (examples / np.sum(noise**2, axis=0)) ** 0.5 * np.geomspace(*NOISE, fan_out)  # mean square sigma^2
        signal = np.sum((root @ optimum) ** 2) / fan_out
        y = x @ optimum + noise * signal**0.5
        found = {"root": root, "optimum": optimum, "start": _mean_start(root, optimum)}
        return _single_precision(found if batch is None else {**found, "x": x, "y": y})

    def draw(data: Data, key: Array) -> Any:
        if batch is None:
            return data
        chosen = jax.random.randint(key, (batch,), 0, examples)
        return data["x"][chosen], data["y"][chosen]

    def loss_of_batch(params: Tree, drawn: Any) -> Array:
        x, y = drawn
        return 0.5 * jnp.mean(jnp.sum(jnp.square(x @ params["w"] - y), axis=-1))

    return Workload(
        name=f"linear-regression-{exponent:g}",
        title=f"linear regression, spectrum exponent {exponent:g}",
        data=data,
        init=_fresh(fan_in, fan_out),
        draw=draw,
        loss=_quadratic if batch is None else loss_of_batch,
        measure=lambda params, data: _quadratic(params, data) / data["start"],
        measured="gap to the optimum as a share of the mean starting gap",
        target=target,
        steps=100,
        batch_text=_batch_text(batch, examples),
        side_by_side=SIDE_BY_SIDE,
        routing=ROUTING,
    )


def class_counts(classes: int, examples: int, kind: str) -> np.ndarray:
    """How many examples every class has: the same number, or in proportion to 1/1, 1/2, 1/3, ..., at least one.

    Raises:
        ValueError: fewer examples than classes, or an unknown kind.
    """
    check_choice("kind", kind, CLASSES)
    if examples < classes:
        raise ValueError(f"examples must be at least as many as classes ({classes}), got {examples!r}")
    shares = power_law(classes, 1.0 if kind == "zipf" else 0.0)
    counts = np.maximum(1, np.floor(examples * shares / shares.sum())).astype(int)
    while counts.sum() > examples:  # where many classes were raised to one
        counts[np.argmax(counts)] -= 1
    counts[: examples - counts.sum()] += 1
    return counts


def least_softmax_loss(
    x: np.ndarray, labels: np.ndarray, classes: int, ridge: float, *, tolerance: float = 1e-9
) -> tuple[np.ndarray, float]:
    """The W that minimizes `mean cross-entropy(x W, labels) + ridge/2 |W|_F^2`, and the minimum, in double precision.

    Newton's method; each step is solved for by conjugate gradients and halved until the loss falls enough (Armijo).
    Since the loss is strongly convex, a gradient G proves `f(W) - f(W*) <= |G|_F^2 / (2 ridge)`: the search ends
    where `|G|_F <= tolerance`.

    Source: Nocedal & Wright, Numerical Optimization, 2006, algorithm 7.1.

    Raises:
        ValueError: fifty steps were not enough, which a ridge near zero brings about.
    """
    examples, fan_in = x.shape
    truth = np.eye(classes)[labels]

    def value(w: np.ndarray) -> tuple[float, np.ndarray]:
        logits = x @ w
        logits -= logits.max(axis=1, keepdims=True)
        normalizer = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -np.sum(truth * (logits - normalizer)) / examples + 0.5 * ridge * np.sum(w**2)
        return float(loss), np.exp(logits - normalizer)

    w = np.zeros((fan_in, classes))
    loss, p = value(w)
    for _ in range(50):
        gradient = x.T @ (p - truth) / examples + ridge * w
        norm = float(np.linalg.norm(gradient))
        if norm <= tolerance:
            return w, loss

        def hessian(d: np.ndarray, p: np.ndarray = p) -> np.ndarray:
            z = x @ d
            return x.T @ (p * (z - np.sum(p * z, axis=1, keepdims=True))) / examples + ridge * d

        direction = _conjugate_gradients(hessian, -gradient, tolerance=min(0.1, norm) * norm)
        slope, length = np.sum(gradient * direction), 1.0
        while value(w + length * direction)[0] > loss + 1e-4 * length * slope + 1e-15 and length > 1e-6:
            length /= 2
        w = w + length * direction
        loss, p = value(w)
    raise ValueError(f"ridge must be larger for the optimum to be found in 50 Newton steps, got {ridge!r}")


def _conjugate_gradients(
    apply: Callable[[np.ndarray], np.ndarray], b: np.ndarray, *, tolerance: float, most: int = 1000
) -> np.ndarray:
    """d with `|A d - b| <= tolerance` for a positive definite A (Hestenes & Stiefel 1952)."""
    d, residual = np.zeros_like(b), b
    direction, square = residual, np.sum(residual**2)
    for _ in range(most):
        if square**0.5 <= tolerance:
            break
        image = apply(direction)
        step = square / np.sum(direction * image)
        d, residual = d + step * direction, residual - step * image
        direction, square = residual + np.sum(residual**2) / square * direction, np.sum(residual**2)
    return d


@functools.cache
def softmax_regression(
    kind: str = "balanced",
    batch: int | None = None,
    *,
    fan_in: int = 64,
    classes: int = 32,
    examples: int = EXAMPLES,
    target: float = 1e-2,
) -> Workload:
    """`f(W) = mean cross-entropy(x W, label) + ridge/2 |W|_F^2` on examples around one center a class.

    `x = mu_label + N(0, I)` with centers `mu_c ~ N(0, 4 / fan_in)`, two standard deviations from zero. Classes have
    equal numbers of examples, or Zipf's, 1/1, 1/2, 1/3, ... of the first's: under such numbers the rare classes are
    what gradient descent is slow at (Kunstner et al. 2024, https://arxiv.org/abs/2402.19449). The optimum is found by
    Newton's method in double precision, `least_softmax_loss`.

    Args:
        kind: `"balanced"` or `"zipf"`.
        batch: examples of a step, drawn with replacement; None: all.
        fan_in: features.
        classes: how many.
        examples: N.
        target: gap to reach, as a share of the gap at W = 0.

    Raises:
        ValueError: an unknown kind, or a batch that is no part of the examples.
    """
    check_choice("kind", kind, CLASSES)
    _check_batch(batch, examples)

    @functools.cache
    def data() -> Data:
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(classes), class_counts(classes, examples, kind))
        centers = rng.standard_normal((classes, fan_in)) * 2 / fan_in**0.5
        x = centers[labels] + rng.standard_normal((examples, fan_in))
        x = x.astype(np.float32).astype(np.float64)  # the optimum is that of the data which runs see
        optimum, least = least_softmax_loss(x, labels, classes, RIDGE)
        return _single_precision(
            {"x": x, "labels": labels, "optimum": optimum, "least": least, "start": np.log(classes) - least}
        )

    def draw(data: Data, key: Array) -> Any:
        if batch is None:
            return data["x"], data["labels"]
        chosen = jax.random.randint(key, (batch,), 0, examples)
        return data["x"][chosen], data["labels"][chosen]

    def loss(params: Tree, drawn: Any) -> Array:
        x, labels = drawn
        logits = x @ params["w"]
        right = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        cross_entropy = jnp.mean(jax.nn.logsumexp(logits, axis=1) - right)
        return cross_entropy + 0.5 * RIDGE * jnp.sum(jnp.square(params["w"]))

    def measure(params: Tree, data: Data) -> Array:
        return (loss(params, (data["x"], data["labels"])) - data["least"]) / data["start"]

    return Workload(
        name=f"softmax-{kind}",
        title=f"softmax regression, {'Zipf' if kind == 'zipf' else 'balanced'} classes",
        data=data,
        init=_fresh(fan_in, classes),
        draw=draw,
        loss=loss,
        measure=measure,
        measured="gap to the optimum as a share of the gap at zero weights",
        target=target,
        steps=100,
        batch_text=_batch_text(batch, examples),
        side_by_side=SIDE_BY_SIDE,
        routing=ROUTING,
    )
