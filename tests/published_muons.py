"""Muon as others published it, in slow, obvious NumPy: a line of their code a line of code."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tests.matrix_references import newton_schulz_by_hand


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


#: `polar_express_coeffs` of nanochat/optim.py at 92d63d4.
NANOCHAT_COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def nanochat_muon_by_hand(
    theta: np.ndarray, gradients: Iterable[np.ndarray], eta: float, *, beta: float = 0.95, lam: float = 0.0
) -> np.ndarray:
    """nanochat's Muon on one matrix of shape (fan_in, fan_out), without its row equilibration and variance reduction.

    Momentum as an average, Nesterov, five Polar Express steps on `X / (1.01 |X|_F + 1e-6)`, the rate times
    `sqrt(max(1, fan_out / fan_in))`, decay where update and weight agree in sign.
    https://github.com/karpathy/nanochat, nanochat/optim.py
    """
    fan_in, fan_out = theta.shape
    m, path = np.zeros_like(theta), []
    for g in gradients:
        m = beta * m + (1 - beta) * g
        u = beta * m + (1 - beta) * g
        x = u.T / (1.01 * np.linalg.norm(u) + 1e-6)  # its weights are (fan_out, fan_in)
        for a, b, c in NANOCHAT_COEFFICIENTS:
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


def whole_nanochat_muon_by_hand(
    w: np.ndarray, gradients: Iterable[np.ndarray], lr: float, *, momentum: float, beta2: float, wd: float
) -> np.ndarray:
    """The whole `muon_step_fused` of nanochat/optim.py at 92d63d4 on one weight (out, in), with its factor of `lr`."""
    lr = lr * max(1.0, w.shape[0] / w.shape[1]) ** 0.5
    buf, v, path = np.zeros_like(w), 0.0, []
    for grad in gradients:
        buf = buf + (1 - momentum) * (grad - buf)
        x = grad + momentum * (buf - grad)
        target = np.linalg.norm(x) / len(x) ** 0.5
        x = x * target / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)
        x = x / (np.linalg.norm(x) * 1.01 + 1e-6)
        for a, b, c in NANOCHAT_COEFFICIENTS:
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        x = x * min(x.shape) ** 0.5 / np.linalg.norm(x)
        axis = 1 if x.shape[0] >= x.shape[1] else 0
        mean = np.mean(x**2, axis=axis, keepdims=True)
        v = v + (1 - beta2) * (mean - v)
        step = np.maximum(v, 1e-10) ** -0.5
        x = x * step * np.linalg.norm(x) / np.linalg.norm(x * step)
        w = w - (lr * x + lr * wd * w * (x * w >= 0))
        path.append(w)
    return np.stack(path)
