"""The rules in NumPy, one line of the paper a line of code: slow, obvious, and independent of the library.

Each follows one array through given gradients and returns the parameters after every step, stacked. The symbols are
those of the docstrings: theta parameters, g gradient, eta learning rate, lam weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np


def sgd_by_hand(theta, gradients, eta, lam=0.0):
    path = []
    for g in gradients:
        g = g + lam * theta
        theta = theta - eta * g
        path.append(theta)
    return np.stack(path)


def momentum_by_hand(theta, gradients, eta, beta=0.9, form="sum", nesterov=False, bias_correction=False, lam=0.0):
    m, path = np.zeros_like(theta), []
    w = {"sum": 1.0, "ema": 1 - beta}[form]
    for t, g in enumerate(gradients, 1):
        g = g + lam * theta
        m = beta * m + w * g
        if nesterov and bias_correction:
            u = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
        elif nesterov:
            u = beta * m + w * g
        elif bias_correction:
            u = m / (1 - beta**t)
        else:
            u = m
        theta = theta - eta * u
        path.append(theta)
    return np.stack(path)


def adagrad_by_hand(theta, gradients, eta, eps=1e-10, r0=0.0, lam=0.0):
    r, path = np.full_like(theta, r0), []
    for g in gradients:
        g = g + lam * theta
        r = r + g**2
        u = g / (np.sqrt(r) + eps)
        theta = theta - eta * u
        path.append(theta)
    return np.stack(path)


def adadelta_by_hand(theta, gradients, eta=1.0, beta=0.9, eps=1e-6, lam=0.0):
    s, d, path = np.zeros_like(theta), np.zeros_like(theta), []
    for g in gradients:
        g = g + lam * theta
        s = beta * s + (1 - beta) * g**2
        u = g * np.sqrt(d + eps) / np.sqrt(s + eps)
        d = beta * d + (1 - beta) * u**2
        theta = theta - eta * u
        path.append(theta)
    return np.stack(path)


def rmsprop_by_hand(
    theta,
    gradients,
    eta,
    beta=0.9,
    eps=1e-8,
    centered=False,
    eps_in_sqrt=False,
    s0=0.0,
    bias_correction=False,
    momentum=None,
    nesterov=False,
    lam=0.0,
):
    s, m, trace, path = np.full_like(theta, s0), np.zeros_like(theta), np.zeros_like(theta), []
    for t, g in enumerate(gradients, 1):
        g = g + lam * theta
        s = beta * s + (1 - beta) * g**2
        m = beta * m + (1 - beta) * g
        c = 1 - beta**t if bias_correction else 1.0
        variance = np.maximum(s / c - (m / c) ** 2, 0) if centered else s / c
        u = g / np.sqrt(variance + eps) if eps_in_sqrt else g / (np.sqrt(variance) + eps)
        if momentum is not None:
            trace = momentum * trace + u
            u = u + momentum * trace if nesterov else trace
        theta = theta - eta * u
        path.append(theta)
    return np.stack(path)


def signsgd_by_hand(theta, gradients, eta, lam=0.0):
    path = []
    for g in gradients:
        u = np.sign(g)
        theta = theta - eta * (u + lam * theta)
        path.append(theta)
    return np.stack(path)


def signum_by_hand(theta, gradients, eta, beta=0.9, lam=0.0):
    m, path = np.zeros_like(theta), []
    for g in gradients:
        m = beta * m + (1 - beta) * g
        u = np.sign(m)
        theta = theta - eta * (u + lam * theta)
        path.append(theta)
    return np.stack(path)


def lion_by_hand(theta, gradients, eta, b1=0.9, b2=0.99, lam=0.0):
    m, path = np.zeros_like(theta), []
    for g in gradients:
        u = np.sign(b1 * m + (1 - b1) * g)
        m = b2 * m + (1 - b2) * g
        theta = theta - eta * (u + lam * theta)
        path.append(theta)
    return np.stack(path)


def adam_by_hand(
    theta,
    gradients,
    eta,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    bias_correction=True,
    initial_moments="zeros",
    nesterov=False,
    coupled=0.0,
    decoupled=0.0,
    cautious=False,
):
    m, v, path = np.zeros_like(theta), np.zeros_like(theta), []
    for t, g in enumerate(gradients, 1):
        g = g + coupled * theta
        if t == 1 and initial_moments == "first_gradient":
            m, v = g, g**2
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m, v
        if nesterov:
            m_hat = b1 * m + (1 - b1) * g
        if bias_correction:
            m_hat = m / (1 - b1**t)
            v_hat = v / (1 - b2**t)
        if bias_correction and nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        u = m_hat / (np.sqrt(v_hat + eps_root) + eps)
        decays = (u * theta > 0) if cautious else 1.0
        theta = theta - eta * (u + decoupled * theta * decays)
        path.append(theta)
    return np.stack(path)


def laprop_by_hand(theta, gradients, eta, b1=0.9, b2=0.999, eps=1e-8, bias_correction=False, lam=0.0):
    s, v, path = np.zeros_like(theta), np.zeros_like(theta), []
    for t, g in enumerate(gradients, 1):
        v = b2 * v + (1 - b2) * g**2
        v_hat = v / (1 - b2**t) if bias_correction else v
        s = b1 * s + (1 - b1) * g / (np.sqrt(v_hat) + eps)
        u = s / (1 - b1**t) if bias_correction else s
        theta = theta - eta * (u + lam * theta)
        path.append(theta)
    return np.stack(path)


def eadam_by_hand(theta, gradients, eta, b1=0.9, b2=0.999, eps=1e-8, lam=0.0):
    m, v, path = np.zeros_like(theta), np.zeros_like(theta), []
    for t, g in enumerate(gradients, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        v = v + eps
        m_hat = m / (1 - b1**t)
        v_hat = v / (1 - b2**t)
        u = m_hat / (np.sqrt(v_hat) + eps)
        theta = theta - eta * (u + lam * theta)
        path.append(theta)
    return np.stack(path)


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


def ema_nesterov_by_hand(
    x: np.ndarray,
    gradient: Callable[[np.ndarray], np.ndarray],
    steps: int,
    eta: float,
    beta: Callable[[int], float],
    gamma: float = 0.99,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient descent inside: the points y where gradients are taken and the points x, after every step.

    With two copies, as the authors have it: the parameters before, and the average step.
    """
    m, ys, xs = np.zeros_like(x), [], []
    for t in range(steps):
        y = x + beta(t) * m
        before, x = x, y - eta * gradient(y)
        m = gamma * m + (1 - gamma) * (x - before)
        xs.append(x)
        ys.append(x + beta(t + 1) * m)
    return np.stack(ys), np.stack(xs)


def tail_average_by_hand(path: Sequence[np.ndarray], start: int, horizon: float) -> np.ndarray:
    """The average after every step of a path; steps count from 1."""
    a, averages = path[0], []
    for t, theta in enumerate(path, 1):
        a = theta if t <= start else a + (theta - a) / horizon
        averages.append(a)
    return np.stack(averages)


def six_step_muon_by_hand(
    theta: np.ndarray, gradients: Iterable[np.ndarray], eta: float, *, beta: float = 0.95
) -> np.ndarray:
    """The `muon_update` of a tour of optimizers, on one matrix: no Nesterov, no eps, no shape factor, no decay.

    Six steps with Modula's coefficients, on a tall matrix (a wide one is transposed):
    https://docs.modula.systems/algorithms/newton-schulz/
    """
    abc = (
        (3955 / 1024, -8306 / 1024, 5008 / 1024),
        (3735 / 1024, -6681 / 1024, 3463 / 1024),
        (3799 / 1024, -6499 / 1024, 3211 / 1024),
        (4019 / 1024, -6385 / 1024, 2906 / 1024),
        (2677 / 1024, -3029 / 1024, 1162 / 1024),
        (2172 / 1024, -1833 / 1024, 682 / 1024),
    )
    m, path = np.zeros_like(theta), []
    for g in gradients:
        m = beta * m + (1 - beta) * g
        x = m.T if m.shape[1] > m.shape[0] else m
        x = x / np.linalg.norm(x)
        for a, b, c in abc:
            gram = x.T @ x
            x = x @ (a * np.eye(len(gram)) + b * gram + c * gram @ gram)
        theta = theta - eta * (x.T if m.shape[1] > m.shape[0] else x)
        path.append(theta)
    return np.stack(path)


def moonshot_muon_by_hand(
    theta: np.ndarray, gradients: Iterable[np.ndarray], eta: float, *, beta: float = 0.95, lam: float = 0.0
) -> np.ndarray:
    """Moonshot's Muon on one matrix: momentum as a sum, update and decay in one bracket, `0.2 sqrt(max(n, m))`.

    `M = beta M + G;  O = NewtonSchulz5(M / |M|_F);  theta = theta - eta (0.2 sqrt(max(n, m)) O + lam theta)`, with
    Nesterov's `G + beta M` in place of M. Liu et al. 2025, section 2.2, https://arxiv.org/abs/2502.16982
    """
    m, path = np.zeros_like(theta), []
    for g in gradients:
        m = beta * m + g
        o = newton_schulz_by_hand(g + beta * m, ((3.4445, -4.7750, 2.0315),) * 5, eps=1e-7)
        theta = theta - eta * (0.2 * np.sqrt(max(theta.shape)) * o + lam * theta)
        path.append(theta)
    return np.stack(path)


def nanochat_muon_by_hand(
    theta: np.ndarray, gradients: Iterable[np.ndarray], eta: float, *, beta: float = 0.95, lam: float = 0.0
) -> np.ndarray:
    """nanochat's Muon on one matrix of shape (fan_in, fan_out), without its row equilibration and variance reduction.

    Momentum as an average, Nesterov, five Polar Express steps on `X / (1.01 |X|_F + 1e-6)`, the rate times
    `sqrt(max(1, fan_out / fan_in))`, decay where update and weight agree in sign.
    https://github.com/karpathy/nanochat, nanochat/optim.py
    """
    abc = (
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    )
    fan_in, fan_out = theta.shape
    m, path = np.zeros_like(theta), []
    for g in gradients:
        m = beta * m + (1 - beta) * g
        u = beta * m + (1 - beta) * g
        x = u.T / (1.01 * np.linalg.norm(u) + 1e-6)  # its weights are (fan_out, fan_in)
        for a, b, c in abc:
            if x.shape[0] > x.shape[1]:
                gram = x.T @ x
                x = a * x + x @ (b * gram + c * (gram @ gram))
            else:
                gram = x @ x.T
                x = a * x + (b * gram + c * (gram @ gram)) @ x
        step = eta * np.sqrt(max(1.0, fan_out / fan_in))
        theta = theta - (step * x.T + step * lam * theta * (x.T * theta >= 0))
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
