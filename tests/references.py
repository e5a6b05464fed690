"""The rules in NumPy, one line of the paper a line of code: slow, obvious, and independent of the library.

Each follows one array through given gradients and returns the parameters after every step, stacked. The symbols are
those of the docstrings: theta parameters, g gradient, eta learning rate, lam weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
