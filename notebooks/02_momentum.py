# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. Momentum and Nesterov
#
# **How can one line more replace the condition number by its square root?** Momentum adds up past gradients. Across a
# valley they cancel, along it they add.
#
# *20 minutes to read, seconds to run. Before it: [chapter 1](01_sgd.ipynb).*

# %% tags=["setup"]
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour.problems.landscapes import quadratic, ravine, styblinski_tang
from jaxopt_tour.problems.stationary import minima
from jaxopt_tour.tour import measures, plots
from jaxopt_tour.tour.exercises import grade
from jaxopt_tour.tour.rollout import rollout

# Steps on two numbers are quickest on a CPU, whatever else there is.
jax.config.update("jax_default_device", jax.devices("cpu")[0])

# %% tags=["picture"]
largest, smallest = 10.0, 0.1
bowl = quadratic(condition_number=largest / smallest)
beta = ((np.sqrt(largest / smallest) - 1) / (np.sqrt(largest / smallest) + 1)) ** 2
eta = (2 / (np.sqrt(largest) + np.sqrt(smallest))) ** 2

runs = {
    "sgd": rollout(jt.sgd(2 / (largest + smallest)), bowl, 200),
    "momentum": rollout(jt.momentum(eta, beta=beta), bowl, 200),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
plots.trajectories(plots.contours(left, bowl), bowl, runs)
left.set_aspect("equal")
plots.losses(right, bowl, runs).legend(frameon=False)
plt.show()

# %% [markdown]
# Both at their best, on a bowl a hundred times steeper across than along. Momentum overshoots, and then shrinks by 0.82
# a step where SGD shrinks by 0.98.
#
# ## The rule
#
# $$m_t = \beta\, m_{t-1} + g_t, \qquad \theta_t = \theta_{t-1} - \eta\, m_t ,$$
#
# so $m_t = \sum_k \beta^k g_{t-k}$. Under a constant gradient the sum is $g / (1 - \beta)$: at $\beta = 0.9$ momentum
# becomes ten times SGD. The EMA form weighs each gradient by $1 - \beta$ and stays in the units of the gradient; it is
# the same rule at the rate $\eta / (1 - \beta)$. At $\beta = 0$ both are SGD.

# %%
print(inspect.getsource(jt.scale_by_momentum))

# %%
tx = jt.scale_by_momentum(0.9)
g, state = jnp.ones(1), tx.init(jnp.zeros(1))
for _ in range(100):
    m, state = tx.update(g, state)
print("after 100 gradients of 1:", m)
np.testing.assert_allclose(m, 1 / (1 - 0.9), rtol=1e-4)  # 0.9^100 is 3e-5

valley = ravine()
sum_form = rollout(jt.momentum(0.02, beta=0.9, form="sum"), valley, 100)
ema_form = rollout(jt.momentum(0.02 / (1 - 0.9), beta=0.9, form="ema"), valley, 100)
np.testing.assert_allclose(sum_form.params, ema_form.params, atol=1e-4)

without_memory = rollout(jt.momentum(0.02, beta=0.0), valley, 100)
np.testing.assert_array_equal(without_memory.params, rollout(jt.sgd(0.02), valley, 100).params)

# %% [markdown]
# ## The rate outside or inside
#
# Many texts keep a velocity, with the rate inside: $v_t = \beta v_{t-1} - \eta_t\, g_t$ and $\theta_t = \theta_{t-1} +
# v_t$. At a constant rate $v = -\eta m$, and the two are one rule. Under a schedule they differ:
#
# $$\text{outside:}\quad -\eta_t \sum_k \beta^k g_{t-k}, \qquad
#   \text{inside:}\quad -\sum_k \beta^k \eta_{t-k}\, g_{t-k} .$$
#
# Outside, a lower rate shortens the next step at once. Inside, past gradients keep the rate of their time, and the step
# takes some $1/(1 - \beta)$ steps to follow. The library's rate is outside, as in PyTorch and Optax.

# %%


def inside(rate):
    """Momentum with the rate inside."""
    return optax.chain(optax.scale_by_schedule(rate), jt.scale_by_momentum(0.9), optax.scale(-1.0))


constant, dropped = optax.constant_schedule(0.02), optax.piecewise_constant_schedule(0.02, {50: 0.1})
np.testing.assert_allclose(rollout(inside(constant), valley, 100).params, sum_form.params, atol=1e-4)

lengths = {}
for name, tx in {"outside": jt.momentum(dropped, beta=0.9), "inside": inside(dropped)}.items():
    state, lengths[name] = tx.init(jnp.zeros(1)), []
    for _ in range(100):
        u, state = tx.update(jnp.ones(1), state)
        lengths[name].append(-float(u[0]))
print("steps around the drop, outside", lengths["outside"][49:52], " inside", lengths["inside"][49:52])
np.testing.assert_allclose(lengths["outside"][49:51], [0.2, 0.02], rtol=0.01)  # a tenth at once
np.testing.assert_allclose(lengths["inside"][49:51], [0.2, 0.9 * 0.2 + 0.002], rtol=0.01)
np.testing.assert_allclose(lengths["inside"][-1], 0.02, rtol=0.06)  # 0.9^50 is 0.005, of nine times as much

# %% [markdown]
# ## Why it is faster
#
# On a bowl with curvature $\lambda$ the distance $e$ from the minimum follows
#
# $$e_{t+1} = (1 + \beta - \eta\lambda)\, e_t - \beta\, e_{t-1} .$$
#
# Try $e_t = r^t$: $r^2 - (1 + \beta - \eta\lambda) r + \beta = 0$. Where the roots are complex their product is
# $\beta$, so both have size $\sqrt\beta$, *whatever the curvature*: every direction in the band $(1 - \sqrt\beta)^2
# \le \eta\lambda \le (1 + \sqrt\beta)^2$ shrinks equally fast. With curvatures from $\mu$ to $L$ the smallest $\beta$
# whose band holds them all is Polyak's choice,
#
# $$\eta = \Big(\frac{2}{\sqrt L + \sqrt\mu}\Big)^2, \qquad
#   \sqrt\beta = \frac{\sqrt{L/\mu} - 1}{\sqrt{L/\mu} + 1} .$$
#
# SGD at its best shrinks by $(L/\mu - 1)/(L/\mu + 1)$ a step. Momentum replaces the condition number by its root. The
# price is at the beginning: it overshoots before it shrinks.

# %%
distance = {name: np.linalg.norm(run.params, axis=-1) for name, run in runs.items()}
factor = {name: (far[80] / far[40]) ** (1 / 40) for name, far in distance.items()}
print("shrinks a step by", factor, "\nby the formulas  ", {"sgd": 99 / 101, "momentum": np.sqrt(beta)})
np.testing.assert_allclose(factor["sgd"], 99 / 101, rtol=1e-3)
# At this beta the roots are double: e_t is (c + d t) r^t, and the line still counts between steps 40 and 80.
np.testing.assert_allclose(factor["momentum"], np.sqrt(beta), rtol=0.03)
assert runs["momentum"].loss.max() > 5 * runs["momentum"].loss[0]

# %% [markdown]
# ## Nesterov: the gradient at the shifted point
#
# The classical form takes the gradient where momentum is about to carry the weights, at $\theta + \beta v$:
#
# $$v_t = \beta v_{t-1} - \eta\, \nabla f(\theta_{t-1} + \beta v_{t-1}), \qquad \theta_t = \theta_{t-1} + v_t .$$
#
# A training step has the gradient at one point only, so name that point: $\varphi_t = \theta_t + \beta v_t$. Then, with
# $g = \nabla f(\varphi_{t-1})$,
#
# $$\varphi_t = \theta_{t-1} + (1 + \beta)\, v_t = \varphi_{t-1} - \beta v_{t-1} + (1 + \beta)\, v_t
#   = \varphi_{t-1} + \beta v_t - \eta\, g ,$$
#
# where the last step put in $v_t - \beta v_{t-1} = -\eta g$. With $v = -\eta m$ this is
#
# $$m_t = \beta m_{t-1} + g, \qquad \varphi_t = \varphi_{t-1} - \eta\, (g + \beta m_t) ,$$
#
# which is the library's rule, `nesterov=True`. The two are one run seen at two points; here is the classical one, in
# NumPy, beside the library's.

# %%
eta, beta, steps = 0.02, 0.9, 150
library = rollout(jt.nesterov(eta, beta=beta), valley, steps)

gradient = jax.jit(jax.grad(valley.fn))
theta, v, shifted = np.array(valley.start), np.zeros(2), []
for _ in range(steps + 1):
    shifted.append(theta + beta * v)
    v = beta * v - eta * np.asarray(gradient(shifted[-1]))
    theta = theta + v
np.testing.assert_allclose(library.params, shifted, atol=1e-4)

# %% [markdown]
# ## What the look-ahead changes
#
# Nesterov's step sees the slope change one step earlier and brakes: less swinging across the valley.

# %%
runs = {
    "momentum": rollout(jt.momentum(eta, beta=beta), valley, steps),
    "nesterov": library,
    "sgd": rollout(jt.sgd(eta), valley, steps),
}
across = {name: np.abs(run.params[20:, 1] - run.params[20:, 0]).sum() for name, run in runs.items()}
print("distance from the floor of the valley, summed from step 20:", across)
assert across["nesterov"] < across["momentum"]
assert runs["momentum"].loss[-1] < runs["sgd"].loss[-1] and runs["nesterov"].loss[-1] < runs["sgd"].loss[-1]

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
plots.trajectories(plots.contours(left, valley), valley, runs)
left.set_aspect("equal")
plots.losses(right, valley, runs).legend(frameon=False)
plt.show()

# %% [markdown]
# ## Out of the first valley
#
# On Styblinski-Tang, from (4.1, 4.5), momentum arrives in the first valley with the speed of all its past gradients,
# runs up the other side and down into the lowest. Its update is not the direction of steepest descent: the angle says
# so.

# %%
landscape = styblinski_tang()
names = {"sgd": jt.sgd(0.02), "momentum": jt.momentum(0.02, beta=0.9), "nesterov": jt.nesterov(0.02, beta=0.9)}
runs = {name: rollout(tx, landscape, 1200) for name, tx in names.items()}

lowest = minima(landscape)[0].params
assert {name for name, run in runs.items() if np.abs(run.params[-1] - lowest).max() < 0.1} == {"momentum", "nesterov"}
assert np.nanmax(measures.angles(runs["sgd"])["gradient"][:5]) < 1  # degrees
assert np.nanmax(measures.angles(runs["momentum"])["gradient"][:40]) > 90  # uphill, for a while

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
plots.trajectories(plots.mark_minima(plots.contours(left, landscape), landscape), landscape, runs)
left.set_aspect("equal")
left.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8)
plots.angles_over_time(right, {"momentum": runs["momentum"]}).set_xlim(0, 40)
right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
plt.show()

# %% [markdown]
# ## Change one thing
#
# Change $\beta$: from which value on does momentum leave the first valley? Does it always end in the lowest?

# %%
beta = 0.9  # try 0.5, 0.7, 0.8, 0.95, 0.99

run = rollout(jt.momentum(0.02, beta=beta), landscape, 1200)
figure, ax = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
plots.trajectories(plots.mark_minima(plots.contours(ax, landscape), landscape), landscape, {"momentum": run})
ax.set_aspect("equal")
plt.show()
print("ends at", run.params[-1], "with f =", run.loss[-1])

# %% [markdown]
# ## Exercises

# %% tags=["checks"]


def check_forms(sum_rate):
    """Exercise 1"""
    for eta, beta in ((0.2, 0.9), (0.5, 0.95), (0.1, 0.5)):
        by_average = rollout(jt.momentum(eta, beta=beta, form="ema"), valley, 50).params
        by_sum = rollout(jt.momentum(float(sum_rate(eta, beta)), beta=beta, form="sum"), valley, 50).params
        apart = np.abs(by_average - by_sum).max()
        assert apart < 1e-3, f"at eta {eta} and beta {beta} the two paths are up to {apart:.3f} apart"


def check_nesterov(step):
    """Exercise 2"""
    tx, g, m = jt.scale_by_momentum(0.9, nesterov=True), np.random.default_rng(0).standard_normal((20, 3)), np.zeros(3)
    state = tx.init(jnp.zeros(3))
    for t, each in enumerate(g, 1):
        u, state = tx.update(jnp.asarray(each, jnp.float32), state)
        ours, m = step(m, each, 0.9)
        assert np.allclose(ours, u, atol=1e-4), f"the update of step {t} is {np.round(u, 3)}, not {np.round(ours, 3)}"


# %% [markdown]
# **1. Two forms, one path.** A paper has the average form at rate $\eta$. Your code has the sum. Which rate gives the
# same path?


# %%
def sum_rate(eta, beta):
    """The rate of the sum form."""
    return eta  # not it


grade(check_forms, sum_rate)

# %% tags=["solution"]


def sum_rate_solution(eta, beta):
    """The average is the sum times 1 - beta."""
    return eta * (1 - beta)


assert grade(check_forms, sum_rate_solution)

# %% [markdown]
# **2. Nesterov by hand.** Return the update and the new $m$ of one step, from the old $m$ and the gradient. Momentum
# alone is below; look ahead by one step.


# %%
def nesterov_step(m, g, beta):
    """(update, new m)"""
    m = beta * m + g
    return m, m


grade(check_nesterov, nesterov_step)

# %% tags=["solution"]


def nesterov_solution(m, g, beta):
    """g + beta m, with the new m: what momentum will add in the next step is there already."""
    m = beta * m + g
    return g + beta * m, m


assert grade(check_nesterov, nesterov_solution)

# %% [markdown]
# ## Papers
#
# Polyak 1964, [Some methods of speeding up the convergence of iteration
# methods](https://doi.org/10.1016/0041-5553%2864%2990137-5). Sutskever et al. 2013, [On the importance of
# initialization and momentum in deep learning](https://proceedings.mlr.press/v28/sutskever13.html).
