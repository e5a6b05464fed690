"""Rules of matrices in slow, obvious NumPy: one line of the paper a line of code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np


def polar_by_hand(x: np.ndarray) -> np.ndarray:
    """The orthogonal factor `U V^T` of one matrix."""
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    return u @ vt


def newton_schulz_by_hand(
    x: np.ndarray, coefficients: Iterable[Sequence[float]], eps: float = 1e-7, guard: str = "add"
) -> np.ndarray:
    """The quintic iteration on one matrix, after division by its Frobenius norm.

    `guard` says how eps keeps a zero matrix from dividing by zero: "add" `x / (|x| + eps)` (Keller Jordan 1e-7,
    Optax 1e-8), "max" `x / max(|x|, eps)` (PyTorch, 1e-7).
    """
    norm = np.sqrt(np.sum(x**2))
    x = x / {"add": norm + eps, "max": max(norm, eps)}[guard]
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def shape_factor_by_hand(name: str | None, fan_in: int, fan_out: int) -> float:
    """The factor on an orthogonalized update."""
    return {
        None: 1.0,
        "original": np.sqrt(max(1.0, fan_out / fan_in)),
        "match_rms_adamw": 0.2 * np.sqrt(max(fan_in, fan_out)),
        "spectral": np.sqrt(fan_out / fan_in),
    }[name]


def muon_by_hand(
    theta: np.ndarray,
    gradients: Iterable[np.ndarray],
    eta: float,
    *,
    orthogonalize: Callable[[np.ndarray], np.ndarray] | None = None,
    coefficients: Any = ((3.4445, -4.7750, 2.0315),) * 5,
    eps: float = 1e-7,
    guard: str = "add",
    beta: float = 0.95,
    form: str = "ema",
    nesterov: bool = True,
    bias_correction: bool = False,
    shape_factor: str | None = "original",
    lam: float = 0.0,
) -> np.ndarray:
    """Muon on one matrix of shape (fan_in, fan_out).

    The decay multiplies `eta`, not `eta s`. `orthogonalize` replaces the iteration (`polar_by_hand`);
    `bias_correction` is Optax's, inside Nesterov.
    """
    fan_in, fan_out = theta.shape
    s = shape_factor_by_hand(shape_factor, fan_in, fan_out)
    w = {"sum": 1.0, "ema": 1 - beta}[form]
    m, path = np.zeros_like(theta), []
    for t, g in enumerate(gradients, 1):
        m = beta * m + w * g
        if nesterov and bias_correction:
            u = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        elif nesterov:
            u = beta * m + w * g
        elif bias_correction:
            u = m / (1 - beta**t)
        else:
            u = m
        o = orthogonalize(u) if orthogonalize else newton_schulz_by_hand(u, coefficients, eps, guard)
        theta = (1 - eta * lam) * theta - eta * s * o
        path.append(theta)
    return np.stack(path)


def equalize_norms_by_hand(x: np.ndarray, along: str = "outputs", target: str = "mean") -> np.ndarray:
    """One matrix (fan_in, fan_out) whose columns (outputs) or rows (inputs) have equal norm."""
    if along == "longer":
        along = "inputs" if x.shape[0] > x.shape[1] else "outputs"
    if along == "inputs":
        return equalize_norms_by_hand(x.T, "outputs", target).T
    y = np.zeros_like(x)
    c = np.linalg.norm(x) / np.sqrt(x.shape[1]) if target == "mean" else 1.0
    for i in range(x.shape[1]):
        norm = np.linalg.norm(x[:, i])
        y[:, i] = c * x[:, i] / norm if norm > 0 else 0.0
    return y


def normuon_by_hand(
    theta: np.ndarray,
    gradients: Iterable[np.ndarray],
    eta: float,
    *,
    orthogonalize: Callable[[np.ndarray], np.ndarray],
    beta: float = 0.95,
    b2: float = 0.95,
    along: str = "outputs",
    nesterov: bool = True,
    shape_factor: str | None = "original",
    lam: float = 0.0,
    eps: float = 1e-10,
) -> np.ndarray:
    """NorMuon on one matrix of shape (fan_in, fan_out)."""
    fan_in, fan_out = theta.shape
    if along == "longer":
        along = "inputs" if fan_in > fan_out else "outputs"
    axis = {"outputs": 0, "inputs": 1}[along]
    s = shape_factor_by_hand(shape_factor, fan_in, fan_out)
    m, v, path = np.zeros_like(theta), 0.0, []
    for g in gradients:
        m = beta * m + (1 - beta) * g
        o = orthogonalize(beta * m + (1 - beta) * g if nesterov else m)
        v = b2 * v + (1 - b2) * np.mean(o**2, axis=axis, keepdims=True)
        o_hat = o / (np.sqrt(v) + eps)
        u = np.linalg.norm(o) * o_hat / np.linalg.norm(o_hat)
        theta = (1 - eta * lam) * theta - eta * s * u
        path.append(theta)
    return np.stack(path)


def hyperball_by_hand(theta: np.ndarray, directions: Iterable[np.ndarray], eta: float) -> np.ndarray:
    """Steps on the sphere of one matrix, along given directions."""
    radius, path = np.linalg.norm(theta), []
    for u in directions:
        theta = theta - eta * radius * u / np.linalg.norm(u)
        theta = radius * theta / np.linalg.norm(theta)
        path.append(theta)
    return np.stack(path)


def muown_by_hand(
    theta: np.ndarray,
    gradients: Iterable[np.ndarray],
    eta: float,
    *,
    beta: float = 0.95,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    nesterov: bool = True,
    lam: float = 0.0,
) -> np.ndarray:
    """Muown on one matrix (fan_in, fan_out), orthogonalized exactly, with v and the norms of outputs kept."""
    v, gamma = theta, np.linalg.norm(theta, axis=0)
    m, m_gamma, v_gamma, path = 0.0, 0.0, 0.0, []
    s = 0.2 * np.sqrt(max(theta.shape))
    for t, g in enumerate(gradients, 1):
        length = np.linalg.norm(v, axis=0)
        direction = v / length
        g_gamma = np.sum(g * direction, axis=0)
        g_v = gamma / length * (g - g_gamma * direction)
        m = beta * m + g_v
        v = v - eta * s * polar_by_hand(g_v + beta * m if nesterov else m)
        m_gamma = b1 * m_gamma + (1 - b1) * g_gamma
        v_gamma = b2 * v_gamma + (1 - b2) * g_gamma**2
        u = (m_gamma / (1 - b1**t)) / (np.sqrt(v_gamma / (1 - b2**t)) + eps)
        gamma = (1 - eta * lam) * gamma - eta * u
        path.append(gamma * v / np.linalg.norm(v, axis=0))
    return np.stack(path)


def dion2_by_hand(
    theta: np.ndarray,
    gradients: Iterable[np.ndarray],
    eta: float,
    *,
    fraction: float = 0.25,
    decay: float = 0.95,
    shape_factor: str | None = "match_rms_adamw",
    lam: float = 0.0,
) -> np.ndarray:
    """Dion2 on one matrix (fan_in, fan_out), orthogonalized exactly; it chooses among the shorter side."""
    fan_in, fan_out = theta.shape
    s = shape_factor_by_hand(shape_factor, fan_in, fan_out)
    m, path = np.zeros_like(theta), []
    for g in gradients:
        m = m + g
        rows, update = (m.T, np.zeros_like(m.T)) if fan_out <= fan_in else (m, np.zeros_like(m))
        count = int(np.ceil(fraction * len(rows)))
        chosen = np.argsort(-np.abs(rows).sum(axis=1))[:count]
        update[chosen] = polar_by_hand(rows[chosen])
        rows = rows.copy()
        rows[chosen] *= decay
        m, update = (rows.T, update.T) if fan_out <= fan_in else (rows, update)
        theta = (1 - eta * lam) * theta - eta * s * update
        path.append(theta)
    return np.stack(path)


def shampoo_by_hand(gradients, b2, root, eps, bias_correction=True):
    """The updates (not the parameters) of one matrix."""

    def inverse_root_of(a):
        values, vectors = np.linalg.eigh(a + eps * np.trace(a) * np.eye(len(a)))
        return (vectors * values ** (-1 / root)) @ vectors.T

    left = right = 0.0
    keep, new = (1.0, 1.0) if b2 is None else (b2, 1 - b2)
    path = []
    for t, g in enumerate(gradients, 1):
        left = keep * left + new * g @ g.T
        right = keep * right + new * g.T @ g
        c = 1 - b2**t if bias_correction and b2 is not None else 1.0
        path.append(inverse_root_of(left / c) @ g @ inverse_root_of(right / c))
    return np.stack(path)


def scion_by_hand(
    theta: np.ndarray,
    gradients: Iterable[np.ndarray],
    eta: float,
    *,
    lmo: Callable[[np.ndarray], np.ndarray],
    scale: float,
    momentum: float = 0.1,
    unconstrained: bool = False,
) -> np.ndarray:
    """The `step` of https://github.com/LIONS-EPFL/scion, scion.py at f58a393: `momentum` is one minus the usual one."""
    buf, path = np.zeros_like(theta), []
    for g in gradients:
        buf = (1 - momentum) * buf + momentum * g
        update = scale * lmo(buf)
        if not unconstrained:
            theta = theta * (1 - eta)
        theta = theta - eta * update
        path.append(theta)
    return np.stack(path)


def scion_lmo_by_hand(norm: str, normalized: bool = True) -> Callable[[np.ndarray], np.ndarray]:
    """The `lmo` of a norm there, without its eps, on a weight in PyTorch's layout (d_out, d_in)."""

    def spectral(g: np.ndarray) -> np.ndarray:
        d_out, d_in = g.shape
        o = newton_schulz_by_hand(g, ((3.4445, -4.7750, 2.0315),) * 5, eps=1e-7)
        return o * np.sqrt(d_out / d_in if normalized else d_out)

    def sign(g: np.ndarray) -> np.ndarray:
        return np.sign(g) / g.shape[1] if normalized else np.sign(g)

    def col_norm(g: np.ndarray) -> np.ndarray:
        return g / (np.sqrt(np.sum(g**2, axis=0, keepdims=True)) / np.sqrt(g.shape[0]))

    def row_norm(g: np.ndarray) -> np.ndarray:
        rms = np.sqrt(np.sum(g**2, axis=-1, keepdims=True))
        return g / (rms * np.sqrt(g.shape[-1]) if normalized else rms)

    def bias_rms(g: np.ndarray) -> np.ndarray:
        return g / np.sqrt(np.mean(g**2, axis=0, keepdims=True))

    return {"Spectral": spectral, "Sign": sign, "ColNorm": col_norm, "RowNorm": row_norm, "BiasRMS": bias_rms}[norm]


def soap_by_hand(
    gradients,
    *,
    b1=0.95,
    b2=0.95,
    eps=1e-8,
    shampoo_beta=None,
    update_every=10,
    max_size=10000,
    bias_correction=True,
    nesterov=False,
    squares_of="gradient",
    first_update="rotated",
):
    """The updates (not the parameters) of one matrix."""

    def first_basis(covariance):
        if len(covariance) > max_size:
            return np.eye(len(covariance))
        return np.linalg.eigh(covariance)[1][:, ::-1]

    def next_basis(covariance, q):
        if len(covariance) > max_size:
            return q, np.arange(len(q))
        order = np.argsort(-np.diag(q.T @ covariance @ q))
        return np.linalg.qr(covariance @ q[:, order])[0], order

    beta = b2 if shampoo_beta is None else shampoo_beta
    m = v = np.zeros_like(gradients[0])
    left = right = 0.0
    path, counted = [], 0
    for t, g in enumerate(gradients, 1):
        left = beta * left + (1 - beta) * g @ g.T
        right = beta * right + (1 - beta) * g.T @ g
        if t == 1:
            q_left, q_right = first_basis(left), first_basis(right)
        if t == 1 and first_update == "zero":
            path.append(np.zeros_like(g))
            continue
        counted += 1
        m = b1 * m + (1 - b1) * g
        corrections = (1 - b1**counted, 1 - b1 ** (counted + 1), 1 - b2**counted) if bias_correction else (1, 1, 1)
        m_hat = m / corrections[0]
        if nesterov:
            m_hat = b1 * m / corrections[1] + (1 - b1) * g / corrections[0]
        if t == 1 and first_update == "momentum":
            path.append(m_hat)
            continue
        p, x = q_left.T @ m_hat @ q_right, q_left.T @ g @ q_right
        if t == 1:  # what is off the diagonal is rounding
            p, x = (np.where(np.abs(z) < 1e-7 * np.linalg.norm(z), 0, z) for z in (p, x))
        v = b2 * v + (1 - b2) * (p if squares_of == "momentum" else x) ** 2
        path.append(q_left @ (p / (np.sqrt(v / corrections[2]) + eps)) @ q_right.T)
        if t > 1 and (t - 1) % update_every == 0:
            q_left, rows = next_basis(left, q_left)
            q_right, columns = next_basis(right, q_right)
            v = v[rows][:, columns]
    return np.stack(path)
