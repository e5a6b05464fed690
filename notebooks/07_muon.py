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
# # 6. Muon and Newton-Schulz
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)
# In Colab: *File > Open notebook > Upload*, and choose this file.
#
# A weight matrix is not a list of numbers. Muon takes the momentum of a matrix and makes all its singular values one.

# %%
# Installs jaxopt-tour where it is missing, and leaves the JAX that is there as it is.
import importlib.metadata
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jaxopt_tour") is None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    here = {name for name in ("jax", "jaxlib", "optax", "flax", "matplotlib") if importlib.util.find_spec(name)}
    if missing := sorted({"jax", "optax", "flax", "matplotlib"} - here):
        kept = [f"{name}=={importlib.metadata.version(name)}" for name in sorted(here & {"jax", "jaxlib"})]
        subprocess.run([*pip, *missing, *kept], check=True)
    subprocess.run([*pip, "--no-deps", "jaxopt-tour"], check=True)

# %%
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxopt_tour as jt
from jaxopt_tour.coefficients import PolynomialCoefficients, keller_jordan, odd_polynomials, polar_express
from jaxopt_tour.orthogonalization.newton_schulz import standard_form
from jaxopt_tour.orthogonalization.svd import polar_factor
from jaxopt_tour.problems.landscapes import matrix_regression, styblinski_tang
from jaxopt_tour.tour import measures, plots
from jaxopt_tour.tour.presets import muon_on_everything
from jaxopt_tour.tour.rollout import rollout

# Steps on small matrices are quickest on a CPU, whatever else there is.
jax.config.update("jax_default_device", jax.devices("cpu")[0])

# %% [markdown]
# ## Steepest descent for matrices
#
# Chapter 1 paid for the length of a step. Pay for its *spectral* norm instead, the most it can change any input:
#
# $$\min_D\ \langle G, D\rangle \quad\text{with}\quad |D|_2 \le 1 .$$
#
# With $G = U S V^\top$, $\langle G, D \rangle = \sum_i s_i\, u_i^\top D\, v_i$, and each factor $u_i^\top D v_i$ is at
# least $-1$. All of them are $-1$ at $D = -U V^\top$: the *polar factor*, $G$ with every singular value made one. The
# value is minus the sum of the singular values. No other matrix of that norm gets there:

# %%
G = jax.random.normal(jax.random.key(0), (6, 9))
polar = polar_factor(G)
best = float(jnp.sum(G * polar))
others = jax.random.normal(jax.random.key(1), (1000, 6, 9))
others = others / jnp.linalg.norm(others, ord=2, axis=(-2, -1), keepdims=True)

np.testing.assert_allclose(jnp.linalg.svd(polar, compute_uv=False), 1, rtol=1e-4)
np.testing.assert_allclose(best, jnp.sum(jnp.linalg.svd(G, compute_uv=False)), rtol=1e-4)
print(f"<G, UV^T> = {best:.2f}, the best of 1,000 others: {float(jnp.sum(G * others, axis=(-2, -1)).max()):.2f}")
assert jnp.sum(G * others, axis=(-2, -1)).max() < best

# %% [markdown]
# It is also the orthogonal matrix nearest to $G$. With orthonormal rows, $|G - O|_F^2 = m + |G|_F^2 - 2 \langle G, O
# \rangle$, and $\langle G, O \rangle$ is largest at $U V^\top$. A wide matrix can have $O O^\top = I$, but not
# $O^\top O = I$ as well.

# %%
orthogonal = polar_factor(others)
np.testing.assert_allclose(polar @ polar.T, np.eye(6), atol=1e-5)
assert jnp.linalg.norm(G - polar) < jnp.linalg.norm(G - orthogonal, axis=(-2, -1)).min()

# %% [markdown]
# ## Newton-Schulz: singular values without an SVD
#
# An odd polynomial of a matrix acts on its singular values alone:
#
# $$X = U S V^\top \quad\Rightarrow\quad a X + b\, (X X^\top) X + c\, (X X^\top)^2 X = U\, (a S + b S^3 + c S^5)\,
# V^\top .$$
#
# Indeed $V^\top V = I$ gives $X X^\top = U S^2 U^\top$, and $U^\top U = I$ gives $(X X^\top)^k X = U S^{2k+1} V^\top$.
#
# So divide $X$ by a norm, to have all $s$ in $(0, 1]$, and apply polynomials that push every $s$ towards one. It takes
# matrix products and nothing else, which is what accelerators are made for. The library's plain form:

# %%
print(inspect.getsource(standard_form))
print(inspect.getsource(PolynomialCoefficients.map_singular_values))
print(inspect.getsource(odd_polynomials.value))

# %%
X = jax.random.normal(jax.random.key(2), (8, 20))
one_step = PolynomialCoefficients("one step", polar_express().polynomials[:1], prescale="frobenius")
result = jt.orthogonalize(X, jt.Orthogonalizer(one_step, dtype="float32"))

u, s, vt = np.linalg.svd(np.asarray(X, np.float64), full_matrices=False)
expected = u @ np.diag(one_step.map_singular_values(s / np.linalg.norm(s))) @ vt
np.testing.assert_allclose(result, expected, atol=1e-4)  # the same singular vectors, mapped singular values

# %% [markdown]
# ## A spectrum goes flat
#
# A 64 x 128 matrix whose singular values fall as $1/i$, and what is left of that after each of five steps. Keller
# Jordan's steps are one polynomial, five times. Polar Express has five polynomials, each the best for the interval that
# the ones before it left. Fewer steps of them are for looking; an optimizer needs all five.

# %%
spectrum = 1 / np.arange(1, 65)
q1, q2 = (np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0] for seed, n in ((0, 64), (1, 128)))
X = jnp.asarray(q1 @ np.diag(spectrum) @ q2[:64], jnp.float32)


def after(coefficients, steps):
    """The singular values of X after the first steps."""
    cut = PolynomialCoefficients(coefficients.name, coefficients.polynomials[:steps], coefficients.prescale)
    return np.linalg.svd(np.asarray(jt.orthogonalize(X, jt.Orthogonalizer(cut, dtype="float32"))), compute_uv=False)


figure, axes = plt.subplots(2, 2, figsize=(11, 7.4), layout="constrained")
for coefficients, ax, below in zip((keller_jordan(), polar_express()), axes[0], axes[1], strict=True):
    for steps in range(1, coefficients.steps + 1):
        last = steps == coefficients.steps
        style = plots.line("muon") | {"linewidth": 2} if last else {"color": str(0.8 - 0.12 * steps), "linewidth": 1}
        ax.plot(np.arange(1, 65), after(coefficients, steps), label=f"after {steps}", **style)
    ax.plot(np.arange(1, 65), spectrum, color="0.6", linestyle=":", label="before")
    ax.set(title=coefficients.name, xlabel="singular value, by size", ylabel="its value", yscale="log", ylim=(0.01, 6))
    plots.newton_schulz_map(below, coefficients).set_title("")
axes[0, 0].legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
plt.show()

ends = {
    coefficients.name: after(coefficients, coefficients.steps) for coefficients in (keller_jordan(), polar_express())
}
for name, values in ends.items():
    print(f"{name:14} from 1/64 ... 1 to between {values.min():.3f} and {values.max():.3f}")
assert np.abs(ends["keller_jordan"] - 1).max() < 0.35  # never at one, but near
assert np.abs(ends["polar_express"] - 1).max() < 0.05

# %% [markdown]
# ## Muon
#
# Momentum, then Newton-Schulz; decay and rate as in AdamW; and a factor $s$ for the shape.
#
# $$m_t = \beta m_{t-1} + (1 - \beta) g_t, \quad u_t = \beta m_t + (1 - \beta) g_t, \quad
#   \theta_t = (1 - \eta\lambda)\, \theta_{t-1} - \eta\, s\, \mathrm{orthogonalize}(u_t) .$$
#
# `jt.muon` sends matrices here and everything else to AdamW (chapter 7). The chain for matrices alone:

# %%
source = inspect.getsource(jt.scale_by_muon)
print(source[source.rindex("    return optax.chain(") :])
print(inspect.getsource(muon_on_everything))

# %% [markdown]
# Every singular value of a step is near $\eta s$, whatever the gradient. With the default factor $s = 0.2
# \sqrt{\max(m, n)}$ the entries have a root mean square of 0.2, about that of AdamW's updates: one learning rate
# serves both.

# %%
for shape in ((64, 64), (64, 256), (256, 64)):
    params = {"kernel": jax.random.normal(jax.random.key(3), shape)}
    axes = {"kernel": jt.MatrixAxes(fan_in=0, fan_out=1)}
    tx = jt.muon(1.0, weight_decay=0.0, routing=axes, orthogonalizer=jt.Orthogonalizer(dtype="float32"))
    update, _ = jax.jit(tx.update)(params, tx.init(params), params)
    rms = float(jnp.sqrt(jnp.mean(update["kernel"] ** 2)))
    print(shape, f"root mean square {rms:.3f}")
    np.testing.assert_allclose(rms, 0.2, rtol=0.06)  # square Gaussians have singular values too small to reach one

# %% [markdown]
# ## On a matrix
#
# Linear regression with a 2 x 2 weight, and inputs five times larger in one direction than in the other. The gradient
# is nearly of rank one: SGD learns one singular direction and hardly the other. Muon goes down both at one speed.

# %%
landscape = matrix_regression()
runs = {
    "sgd": rollout(jt.sgd(0.2), landscape, 60),
    "adam": rollout(jt.adam(0.1), landscape, 60),
    "muon": rollout(muon_on_everything(0.25, beta=0.9), landscape, 60),
}
values = {kind: np.asarray(each) for kind, each in measures.singular_values(runs["muon"]).items()}
print("first gradient's singular values:", values["gradient"][0], " first update's:", values["update"][0])
assert values["gradient"][0, 0] > 10 * values["gradient"][0, 1]
assert values["update"][0, 0] < 1.1 * values["update"][0, 1]

start = np.array(landscape.start)
left_over = {name: landscape.plane.coordinates(run.params[10]) / start for name, run in runs.items()}
moved = {name: np.abs(landscape.plane.coordinates(run.params[20]) - start) for name, run in runs.items()}
print("left after 10 steps of SGD:", left_over["sgd"], " moved by 20 steps of Muon:", moved["muon"])
assert abs(left_over["sgd"][0]) < 0.01 and left_over["sgd"][1] > 0.7
np.testing.assert_allclose(moved["muon"][0], moved["muon"][1], rtol=0.05)

figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
plots.trajectories(plots.mark_minima(plots.contours(axes[0], landscape), landscape), landscape, runs)
axes[0].legend(fontsize=8)
plots.losses(axes[1], landscape, runs)
plots.singular_values_over_time(axes[2], "muon", runs["muon"])
plt.show()

# %% [markdown]
# At a constant rate Muon does not settle: the singular values of its update stay where they are while those of the
# gradient fall. On so easy a problem SGD is no slower; what the rule is worth on real models is what `./tour` measures.
#
# ## On a vector
#
# Two numbers are a 2 x 1 matrix. Its one singular value is its length, so orthogonalizing makes a unit vector: every
# step has the same length. On a vector Muon is normalized momentum, and nothing more.

# %%
flat = rollout(muon_on_everything(0.1), styblinski_tang(), 300)
lengths = np.linalg.norm(flat.update, axis=-1)
print("lengths of 300 steps: between", lengths.min(), "and", lengths.max())
np.testing.assert_allclose(lengths, lengths[0], rtol=0.02)

# %% [markdown]
# ## Change one thing
#
# Change the coefficients: what do others leave of the spectrum, and what becomes of the smallest values?

# %%
coefficients = jt.coefficients.cubic(5)  # try cubic(10), you(), cans(), polar_express(3, degree=9)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
plots.newton_schulz_map(left, coefficients)
right.plot(np.arange(1, 65), spectrum, color="0.6", linestyle=":", label="before")
right.plot(np.arange(1, 65), after(coefficients, coefficients.steps), label="after", **plots.line("muon"))
right.set(xlabel="singular value, by size", ylim=(0, 1.4))
right.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Papers
#
# Jordan et al. 2024, [Muon](https://kellerjordan.github.io/posts/muon/). Bernstein 2025, [Deriving
# Muon](https://jeremybernste.in/writing/deriving-muon). Bernstein & Newhouse 2024, [Old Optimizer, New
# Norm](https://arxiv.org/abs/2409.20325). Liu et al. 2025, [Muon is Scalable for LLM
# Training](https://arxiv.org/abs/2502.16982). Amsel et al. 2025, [Polar Express](https://arxiv.org/abs/2505.16932).
