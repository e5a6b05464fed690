"""EMA-Nesterov: gradients are taken ahead of the parameters, along the average of their past steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_tour._checks import (
    check_call,
    check_decay_rate,
    check_float_dtype,
    check_number,
    check_transformation,
    check_tree_like,
)
from jaxopt_tour._trees import only_state
from jaxopt_tour._types import Array, DTypeLike, Tree
from jaxopt_tour.optimizers._numerics import Scalar, cast_update, hyperparameter, widen, zeros_like_first_moment


class LookAheadState(NamedTuple):
    """What takes the parameters of the training loop back to those to evaluate."""

    count: Array  # type: ignore[assignment]  # t, int32
    beta: Array  # beta_t, by which the parameters now look ahead
    trend: Tree  # m_t, the average step


class EmaNesterovState(NamedTuple):
    """State of `ema_nesterov`.

    The count is one level down because `optax.tree.set(state, count=...)` stops at the first count of a node.
    """

    look_ahead: LookAheadState
    inner: Any


def ema_nesterov(
    inner: optax.GradientTransformation,
    beta: float | Array | Callable[[Any], Any] = 0.6,
    *,
    gamma: Scalar = 0.99,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Let an optimizer take its gradients ahead of its parameters, in the direction of their average step.

    $$
    \begin{aligned}
    y_t &= x_t + \beta_t m_t \\
    x_{t+1} &= A(y_t) \\
    m_{t+1} &= \gamma m_t + (1 - \gamma) (x_{t+1} - x_t)
    \end{aligned}
    $$

    $A$ is a step of `inner` with the gradient at $y_t$. The parameters of the training loop are $y_t$; the model to
    evaluate is $x_t$, which `ema_nesterov_params` gives. Since $x_t = y_t - \beta_t m_t$, one copy of the parameters
    is enough: the update is that of `inner` plus $\beta_{t+1} m_{t+1}$.

    At $\beta = 0$ it is `inner`, bit for bit. While the steps of `inner` do not change, those of $x$ are
    $1 / (1 - \beta)$ times as long: 2.5 times at 0.6. With a negative $\beta$ gradients are taken behind the
    parameters, and steps are shorter.

    It goes around the whole optimizer, and nothing that changes updates may come after it in a chain. A `tail_average`
    belongs to `inner`, where it averages $x_t$.

    ```python
    def beta(count):  # the authors' for a run of 3,150 steps: ahead while the rate is high
        return jnp.where((count >= 500) & (count < 2400), 0.6 * schedule(count) / 0.035, 0.0)

    tx = jt.ema_nesterov(jt.muon(schedule), beta)
    ```

    Args:
        inner: Optimizer whose steps are taken. Its weight decay acts at $y_t$, as in the authors' code.
        beta: Length $\beta < 1$ of the look-ahead in average steps, of any sign: a number, or a schedule of the step
            count, whose values are not checked. Default 0.6. The authors scale it with the learning rate, and set it to
            zero in the first sixth and the last quarter of a run.
        gamma: Exponential decay rate of past steps, $0 \le \gamma < 1$. Default 0.99.
        mu_dtype: Dtype of the average step $m$. Default None: the dtype of the parameters. Set `"float32"` for bfloat16
            parameters.

    Returns:
        The Optax transformation; its state has one array of the parameter's shape for every parameter, and that of
        `inner`.

    Raises:
        ValueError: An argument is not one of those allowed.

    Source:
        Yau et al. 2026, https://arxiv.org/abs/2605.25395. The authors' code
        (https://github.com/KellerJordan/modded-nanogpt/pull/308) keeps $x_t$ beside $m_t$ and allows no negative
        $\beta$. Gains of 40 to 200 of 3,000 steps there did not carry over to a mixture of experts of the Marin
        project, whose best constant $\beta$ was -0.2.
    """
    check_transformation("inner", inner)
    _check_beta(beta)
    check_decay_rate("gamma", gamma)
    mu_dtype = check_float_dtype("mu_dtype", mu_dtype)
    inner_tx, gamma = optax.with_extra_args_support(inner), hyperparameter(gamma)

    def init(params: Tree) -> EmaNesterovState:
        count, no_look_ahead = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.float32)
        trend = zeros_like_first_moment(params, mu_dtype)
        return EmaNesterovState(LookAheadState(count, no_look_ahead, trend), inner_tx.init(params))

    def update(
        updates: Tree, state: EmaNesterovState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, EmaNesterovState]:
        steps, inner_state = inner_tx.update(updates, state.inner, params, **extra_args)
        count, now = optax.safe_increment(state.look_ahead.count), state.look_ahead.beta
        next_beta = jnp.asarray(beta(count) if callable(beta) else beta, jnp.float32)

        def average(u: Any, m: Any) -> Any:
            if u is None:
                return m
            step = widen(u) + now * widen(m)  # x_(t+1) - x_t
            return (gamma * widen(m) + (1 - gamma) * step).astype(m.dtype)

        def look_ahead(u: Any, m: Any) -> Any:
            if u is None:
                return None
            ahead = widen(u) + next_beta * widen(m)
            return cast_update(jnp.where(next_beta == 0, widen(u), ahead), u)

        trend = jax.tree.map(average, steps, state.look_ahead.trend, is_leaf=lambda leaf: leaf is None)
        ahead = jax.tree.map(look_ahead, steps, trend, is_leaf=lambda leaf: leaf is None)
        return ahead, EmaNesterovState(LookAheadState(count, next_beta, trend), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def ema_nesterov_params(state: Any, params: Tree) -> Tree:
    r"""Return the parameters to evaluate, $x_t = y_t - \beta_t m_t$, of a run with `ema_nesterov`.

    Args:
        state: State of the optimizer, in which `ema_nesterov` occurs once, at any depth.
        params: Parameters $y_t$ of the training loop.

    Returns:
        A tree like the parameters.

    Raises:
        ValueError: The state has no `LookAheadState`, or several.
    """
    found = only_state(LookAheadState, state)
    check_tree_like("params", params, found.trend)
    return jax.tree.map(lambda y, m: cast_update(widen(y) - found.beta * widen(m), y), params, found.trend)


def _check_beta(beta: Any) -> None:
    allowed = "a number < 1 or a schedule (a function of the step)"
    if callable(beta):
        check_call("beta", beta, (0,), allowed=allowed)
    else:
        check_number("beta", beta, allowed, lambda number: -np.inf < number < 1)
