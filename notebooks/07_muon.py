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
# # 7. Muon
#
# **Why does Muon win on a weight matrix, and when does it not?** AdamW rescales every entry, Muon every singular value.
# On one and the same quadratic AdamW needs a third of Muon's steps, or seven times as many: the axes decide.
#
# *40 minutes to read, half a minute to run. Before it: [chapter 6](06_norms.ipynb), for where the rule comes from.*

# %% tags=["setup"]
import functools
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour.coefficients import PolynomialCoefficients, keller_jordan, odd_polynomials, polar_express
from jaxopt_tour.orthogonalization.newton_schulz import standard_form
from jaxopt_tour.orthogonalization.svd import polar_factor
from jaxopt_tour.problems.landscapes import styblinski_tang
from jaxopt_tour.problems.matrix_landscapes import matrix_regression
from jaxopt_tour.problems.regression import matrix_quadratic, rotation
from jaxopt_tour.tour import measures, plots
from jaxopt_tour.tour.exercises import grade
from jaxopt_tour.tour.presets import muon_on_everything
from jaxopt_tour.tour.rollout import rollout
from jaxopt_tour.tour.train import warmup_then_decay

# Steps on small matrices are quickest on a CPU, whatever else there is.
jax.config.update("jax_default_device", jax.devices("cpu")[0])

# %% tags=["picture"]
TARGET, AXES = 1e-3, {"w": jt.MatrixAxes(fan_in=0, fan_out=1)}
rules = {
    "momentum": lambda rate: jt.momentum(rate, beta=0.95, form="ema"),
    "adamw": lambda rate: jt.adamw(rate, b1=0.0, b2=0.95, weight_decay=0.0),
    "adamw, b1 = 0.9": lambda rate: jt.adamw(rate, b1=0.9, b2=0.95, weight_decay=0.0),
    "muon": lambda rate: jt.muon(rate, beta=0.6, weight_decay=0.0, orthogonalizer="polar_express", routing=AXES),
}
# Rate, momentum and number of steps as the laboratory's experiment matrix-problems tuned them, for each Q.
tuned = {
    "Q diagonal": {"momentum": (56.23, 128), "adamw": (0.3, 6), "muon": (0.2, 16)},
    "Q rotated, the same eigenvalues": {"momentum": (56.23, 128), "adamw, b1 = 0.9": (0.3, 128), "muon": (0.2, 16)},
}


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def descend(rule, aligned, peak, steps):
    """Losses of one run on 1/2 tr(W^T Q W), as shares of the first; the rate rises, then falls to zero."""
    problem = matrix_quadratic(2.0, aligned=aligned)
    data, params = problem.data(), problem.init(jax.random.key(0))
    tx = rules[rule](lambda count: warmup_then_decay(count, peak=peak, steps=steps))

    def step(carry, _):
        params, state = carry
        loss, gradient = jax.value_and_grad(problem.loss)(params, data)
        update, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, update), state), loss

    losses = jax.lax.scan(step, (params, tx.init(params)), length=steps + 1)[1]
    return losses / losses[0]


needed = {}
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
for ax, (title, runs) in zip(axes, tuned.items(), strict=True):
    for rule, (peak, steps) in runs.items():
        losses = np.asarray(descend(rule, title == "Q diagonal", peak, steps))
        name = rule.partition(",")[0]
        needed[title, name] = 1 + int(np.argmax(losses[1:] <= TARGET))
        shown = losses[: needed[title, name] + 1]
        ax.plot(1 + np.arange(len(shown)), shown, label=f"{name}: {needed[title, name]} steps", **plots.line(name))
    ax.axhline(TARGET, color="0.5", linewidth=0.8, linestyle=":")
    ax.set(title=title, xscale="log", yscale="log", xlabel="step", xlim=(1, 200), ylim=(3e-4, 12))
    ax.legend(frameon=False)
axes[0].set_ylabel("loss, as a share of its start")
plt.show()

# %% [markdown]
# One problem, $f(W) = \frac12 \mathrm{tr}(W^\top Q\, W)$ with a 64 x 64 matrix $W$ and eigenvalues $1, \frac14,
# \frac19, \dots$ of $Q$. Left, $Q$ is diagonal. Right, the same $Q$ in rotated axes. Every optimizer is tuned. Only
# AdamW notices the rotation.

# %%
straight, rotated = tuned
ratio = {title: needed[title, "adamw"] / needed[title, "muon"] for title in tuned}
print("AdamW's steps over Muon's:", {title: round(value, 2) for title, value in ratio.items()})
# Over ten seeds the laboratory has 0.30 and 7.6.
assert ratio[straight] < 0.5 and ratio[rotated] > 5
assert needed[straight, "muon"] - 1 <= needed[rotated, "muon"] <= needed[straight, "muon"] + 1

# %% [markdown]
# ## One matrix, written out
#
# Linear regression in several outputs is $f(W) = \frac12 | X W - Y |_F^2$, with inputs $X$, targets $Y$ and a weight
# $W$. Its gradient is zero at the least-squares solution:
#
# $$\nabla f(W) = X^\top (X W - Y), \qquad W_* = (X^\top X)^{-1} X^\top Y .$$
#
# To see the Hessian as a matrix, stack the columns of $W$ into one long vector, $\mathrm{vec}\,W$. Column $j$ of $X W$
# is $X w_j$, so $\mathrm{vec}(X W) = (I \otimes X)\, \mathrm{vec}\,W$: a block-diagonal matrix with $X$ in every block.
# Products of such matrices go block by block, and
#
# $$f = \tfrac12 | (I \otimes X)\, \mathrm{vec}\,W - \mathrm{vec}\,Y |^2 , \qquad
#   \nabla^2 f = (I \otimes X)^\top (I \otimes X) = I \otimes X^\top X .$$
#
# Every column of $W$ is a problem of its own, with the same Hessian $Q = X^\top X$. What couples the columns is the
# optimizer. Completing the square leaves the quadratic of the picture:
#
# $$f(W) - f(W_*) = \tfrac12 \mathrm{tr}\big( (W - W_*)^\top Q\, (W - W_*) \big) .$$

# %%
rng = np.random.default_rng(0)
X, Y, W = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((20, 3), (20, 4), (3, 4)))


def regression(W):
    """Half the squared error."""
    return 0.5 * jnp.sum((X @ W - Y) ** 2)


def vec(W):
    """The columns, one below the other."""
    return W.T.reshape(-1)


Q, solution = X.T @ X, jnp.linalg.solve(X.T @ X, X.T @ Y)
of_vec = jax.hessian(lambda w: regression(w.reshape(4, 3).T))(vec(W))
np.testing.assert_allclose(vec(X @ W), jnp.kron(jnp.eye(4), X) @ vec(W), atol=1e-4)
np.testing.assert_allclose(jax.grad(regression)(W), X.T @ (X @ W - Y), atol=1e-3)
np.testing.assert_allclose(of_vec, jnp.kron(jnp.eye(4), Q), atol=1e-3)
np.testing.assert_allclose(jax.grad(regression)(solution), 0, atol=1e-3)
gap = 0.5 * jnp.trace((W - solution).T @ Q @ (W - solution))
np.testing.assert_allclose(regression(W) - regression(solution), gap, rtol=1e-3)

# %% [markdown]
# ## Why Muon wins
#
# Write $E = W - W_*$ for what is still wrong. The gradient is $Q E$: directions with a large eigenvalue of $Q$ dominate
# it. Newton's method would undo that, with the step $-Q^{-1} Q E = -E$. It needs $Q$, and Muon does not know $Q$. But
# suppose $E$ is equally long in all directions, $E E^\top = e^2 I$. Then
#
# $$(G G^\top)^{-1/2}\, G = (Q\, E E^\top Q)^{-1/2}\, Q E = \frac1e\, Q^{-1} Q E = \frac{E}{e} .$$
#
# *Muon's step is Newton's direction*, for every $Q$, and the matrix in front is the polar factor's. In words: the
# columns of $W$ all see the same $Q$, so the gradient's own covariance says what $Q$ is. An optimizer that looks at one
# entry at a time cannot know.
#
# Two laws explain the picture. Orthogonalizing turns with the coordinates, $\mathrm{polar}(R\, G) = R\,
# \mathrm{polar}(G)$ for a rotation $R$, so Muon cannot tell left from right. Signs do not: $\mathrm{sign}(R\, G)$ is
# not $R\, \mathrm{sign}(G)$.

# %%
n = 64
R, E = rotation(n, rng), rotation(n, rng)  # E is orthogonal: equally long in all directions
eigenvalues = np.arange(1.0, n + 1) ** -2


def cosine(A, B):
    """Between two matrices as vectors."""
    return float(np.sum(A * B) / np.linalg.norm(A) / np.linalg.norm(B))


def polar(G):
    """The exact polar factor."""
    u, _, vt = np.linalg.svd(G, full_matrices=False)
    return u @ vt


def whole_sign(G):
    """AdamW's first step."""
    return np.sign(G)


G = np.diag(eigenvalues) @ E
np.testing.assert_allclose(polar(G), E, atol=1e-8)  # Newton's direction
np.testing.assert_allclose(polar(R @ G), R @ polar(G), atol=1e-8)
assert np.abs(whole_sign(R @ G) - R @ whole_sign(G)).max() > 1

rough = rng.standard_normal((n, n))  # what a real start looks like: not orthogonal, but no direction is left out
for name, error in {"orthogonal": E, "Gaussian": rough}.items():
    for title, axes_of_Q in {"diagonal": np.eye(n), "rotated": R}.items():
        error_here = axes_of_Q @ error
        gradient = axes_of_Q @ np.diag(eigenvalues) @ error
        found = [cosine(step(gradient), error_here) for step in (lambda G: G, whole_sign, polar)]
        print(
            f"error {name:10}  Q {title:8}  cosine with Newton's direction: "
            f"SGD {found[0]:.2f}  signs {found[1]:.2f}  Muon {found[2]:.2f}"
        )
        assert found[2] > 0.7 and found[0] < 0.25 and (found[1] > 0.75) == (title == "diagonal")

# %% [markdown]
# ## And when it does not
#
# * $Q$ is nearly diagonal. Then each entry's own scale is all there is to know, and AdamW also learns from it when to
#   make smaller steps. That is the left panel.
# * The error is *not* equally long in all directions, as with targets of low rank. Then one length for all directions
#   is too long for some.
# * There are no columns to learn from. A vector is a matrix with one column: see the end of this chapter.
# * Near the optimum. The step keeps its length until the rate falls.
#
# The laboratory's section 4 has all of these, with intervals over ten seeds. Rotated axes are not a trick: nothing in a
# network makes the eigenvectors of its layers' inputs those of single neurons.
#
# ## The nearest orthogonal matrix
#
# [Chapter 6](06_norms.ipynb) found $\mathrm{polar}(G) = U V^\top$ as the step of spectral norm one that lowers the loss
# most. It is also the orthogonal matrix nearest to $G$. With orthonormal rows $| O |_F^2$ is the number of rows $m$, so
#
# $$| G - O |_F^2 = | G |_F^2 + m - 2 \langle G, O \rangle ,$$
#
# and $\langle G, O \rangle$ is largest at $U V^\top$. A wide matrix can have $O O^\top = I$, but not $O^\top O = I$ as
# well.

# %%
G = jax.random.normal(jax.random.key(0), (6, 9))
nearest = polar_factor(G)
orthogonal = polar_factor(jax.random.normal(jax.random.key(1), (1000, 6, 9)))
np.testing.assert_allclose(nearest @ nearest.T, np.eye(6), atol=1e-5)
distance = jnp.linalg.norm(G - orthogonal, axis=(-2, -1))
print(f"distance {jnp.linalg.norm(G - nearest):.3f}, of 1,000 other orthogonal matrices at least {distance.min():.3f}")
assert jnp.linalg.norm(G - nearest) < distance.min()

# %% [markdown]
# ## Shampoo without accumulation
#
# Shampoo ([chapter 3](03_adaptive_rates.ipynb)) multiplies by inverse roots of sums over all gradients,
# $L = \sum G G^\top$ and $R = \sum G^\top G$. Let the sums have one term. With $G = U S V^\top$, $L = U S^2 U^\top$ and
# $R = V S^2 V^\top$, so
#
# $$L^{-1/4}\, G\, R^{-1/4} = U S^{-1/2}\, U^\top U S V^\top\, V S^{-1/2} V^\top
#   = U S^{-1/2} S S^{-1/2} V^\top = U V^\top .$$
#
# Muon is Shampoo that forgets, with its momentum in front.

# %%
forgetful = jt.scale_by_shampoo(None, eps=0.0, axes=jt.MatrixAxes(fan_in=0, fan_out=1))
square = jnp.asarray(rng.standard_normal((8, 8)), jnp.float32)
once, _ = forgetful.update(square, forgetful.init(square))
np.testing.assert_allclose(once, polar_factor(square), atol=2e-3)  # fourth roots in float32

# %% [markdown]
# ## Odd polynomials, line by line
#
# An SVD at every step is slow on an accelerator. Products of matrices are fast, and they are enough. Let $X = U S
# V^\top$ with $U^\top U = V^\top V = I$.
#
# $$\begin{aligned}
#   X X^\top &= U S V^\top\, V S U^\top = U S^2 U^\top && \text{because } V^\top V = I \\
#   (X X^\top)^k &= U S^{2k} U^\top && \text{because } U^\top U = I \\
#   (X X^\top)^k X &= U S^{2k}\, U^\top U\, S V^\top = U S^{2k+1} V^\top && \text{and once more}
# \end{aligned}$$
#
# So a sum of them acts on singular values alone, and keeps the singular vectors:
#
# $$a X + b\, (X X^\top) X + c\, (X X^\top)^2 X = U\, p(S)\, V^\top, \qquad p(s) = a s + b s^3 + c s^5 .$$
#
# Only odd powers come out this way. Two such steps in a row are $p_2(p_1(s))$. Divide $X$ by a norm, to have all $s$ in
# $(0, 1]$, then apply polynomials that push every $s$ towards one. That is Newton-Schulz. The library's plain form:

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
# ## Where 3.4445 comes from
#
# Keller Jordan repeats one quintic, $(a, b, c) = (3.4445, -4.7750, 2.0315)$. His post states the objective. Small
# singular values grow by the factor $a = p'(0)$ a step, so make $a$ as large as possible. Under one condition: every
# singular value has to end in $[1 - \varepsilon, 1 + \varepsilon]$ and stay there. Training did not suffer up to an
# $\varepsilon$ of about 0.3.
#
# At the optimum the condition binds wherever it can. On its way from zero, $p$ climbs to a highest point of $1 +
# \varepsilon$, falls to a lowest one of $1 - \varepsilon$, and is back at $1 + \varepsilon$ at the right end, which is
# $s = 1 + \varepsilon$ itself. That is three equations for three coefficients. Let $l$ be the first point with $p(l) =
# 1 - \varepsilon$. Then $p - 1$ has the values $-\varepsilon, +\varepsilon, -\varepsilon, +\varepsilon$ on $[l, 1 +
# \varepsilon]$: it *equioscillates*, and by Chebyshev's theorem no quintic is closer to one there.
#
# So both designs have one tool: the best odd quintic on an interval. Four unknowns, $a, b, c$ and the error, and four
# equations, which are linear once the two inner extrema are known. Guess them, solve, move them, repeat: Remez.


# %%
def best_quintic(low, high):
    """The odd quintic closest to 1 on [low, high], and its largest distance from 1."""
    inner = np.array([(3 * low + high) / 4, (low + 3 * high) / 4])
    for _ in range(50):
        points = np.array([low, *inner, high])
        equations = np.stack([points, points**3, points**5, [1, -1, 1, -1]], axis=1)
        a, b, c, error = np.linalg.solve(equations, np.ones(4))  # p(points) = 1 - error, 1 + error, ...
        inner = np.sqrt(np.roots([5 * c, 3 * b, a])[::-1].real)  # where p' = a + 3 b s^2 + 5 c s^4 is zero
    return (a, b, c), error


def steepest(epsilon):
    """The largest slope at zero whose iterates end within epsilon of 1: the low end whose error is epsilon."""
    low, high = 1e-3, 0.9
    for _ in range(60):
        middle = np.sqrt(low * high)
        p, error = best_quintic(middle, 1 + epsilon)
        low, high = (middle, high) if error > epsilon else (low, middle)
    return p


p, error = best_quintic(0.1, 1.0)
np.testing.assert_allclose(p, odd_polynomials.best(0.1, 1.0, 5), rtol=1e-8)
for epsilon in (0.1, 0.2, 0.3):
    a, b, c = steepest(epsilon)
    print(f"epsilon {epsilon:.1f}: largest slope {a:.4f}, with b = {b:.4f} and c = {c:.4f}")

published = keller_jordan().polynomials[0]
lowest, highest = odd_polynomials.image(published, 0.25, 1.2024)
print(f"published: slope {published[0]}, values stay between {lowest:.3f} and {highest:.3f}")
reached = min((abs(steepest(epsilon)[0] - published[0]), epsilon) for epsilon in np.arange(0.19, 0.23, 0.001))[1]
print(f"its slope is the optimum for epsilon = {reached:.3f}")
assert 0.2 < reached < 0.22 and abs(highest - 1.2024) < 1e-3 and abs(1 - lowest - 0.318) < 2e-3

# %% [markdown]
# So 3.4445 is near the optimum of its objective, not at it. The same slope is possible with $\varepsilon = 0.207$, and
# $\varepsilon = 0.3$ allows 3.6356. The post says that the numbers come from an ad-hoc gradient search. They have a
# margin that the optimum lacks: $p$ maps its largest value, 1.20, to 0.95 and not to itself, so rounding cannot blow it
# up.
#
# That the three equations give the optimum is checked by brute force: no polynomial with a larger slope keeps its
# values within the bounds.

# %%
epsilon, candidates = 0.3, 100_000
optimum = steepest(epsilon)
s = np.linspace(0.02, 1 + epsilon, 65)[:, None]
least = np.where(s < 1 - epsilon, s, 1 - epsilon)  # below the band values have to grow


def kept(a, b, c, slack=0.0):
    """Whether values grow until they are in the band, and never leave it."""
    values = s * (a + s**2 * (b + s**2 * c))
    return np.all((values <= 1 + epsilon + slack) & (values >= least - slack), axis=0)


count = {}
for word, sign in (("larger", 1), ("smaller", -1)):
    a = optimum[0] + sign * rng.uniform(0, 0.4, candidates)
    b, c = (best + rng.uniform(-1.5, 1.5, candidates) for best in optimum[1:])
    count[word] = int(kept(a, b, c).sum())
    print(f"{candidates:,} polynomials with a {word} slope, of which {count[word]} keep their values within {epsilon}")
assert count["larger"] == 0 and count["smaller"] > 100 and kept(*optimum, slack=1e-6)

# %% [markdown]
# ## Polar Express: a new polynomial every step
#
# One polynomial repeated five times has to serve the first step, where values reach from 0.003 to 1, and the last,
# where all are near one. Polar Express takes the best quintic for the interval at hand. Its image is an interval around
# one, and the best quintic for *that* interval is next. Composing best ones is the best composition: theorem 3.1 of the
# paper.

# %%
low, high, express = 3e-3, 1.0, []
for step in range(1, 6):
    p, error = best_quintic(low, high)
    express.append(p)
    print(f"step {step}: [{low:.4f}, {high:.4f}] to [{1 - error:.4f}, {1 + error:.4f}], slope {p[0]:.2f}")
    low, high = 1 - error, 1 + error

theirs = polar_express(safety=1.0)
ours, repeated = PolynomialCoefficients("equioscillation", tuple(express)), keller_jordan()
errors = {each.name: each.worst_error(3e-3) for each in (ours, theirs, repeated)}
print("largest distance from 1 on [0.003, 1]:", {name: round(value, 4) for name, value in errors.items()})
# The library raises the low end of wide intervals, which keeps values below it from growing too far; nearly as good.
assert errors["equioscillation"] <= errors["polar_express"] < 1.3 * errors["equioscillation"] < errors["keller_jordan"]

# %% [markdown]
# ## A spectrum goes flat
#
# A 64 x 128 matrix whose singular values fall as $1/i$, and what is left of that after each of five steps. Fewer steps
# of Polar Express are for looking; an optimizer needs all five.

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
# `jt.muon` sends matrices here and everything else to AdamW ([chapter 8](08_flax.ipynb)). The chain for matrices alone:

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
# Your own $a$, $b$ and $c$, repeated five times. What becomes of the smallest values, and what blows up?

# %%
a, b, c = 3.4445, -4.7750, 2.0315  # try 1.5, -0.5, 0; 3.6356, -4.7916, 1.9125; 4.2, -4.7, 1.9

mine = PolynomialCoefficients("mine", 5 * ((a, b, c),))
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
plots.newton_schulz_map(left, mine)
right.plot(np.arange(1, 65), spectrum, color="0.6", linestyle=":", label="before")
right.plot(np.arange(1, 65), after(mine, 5), label="after", **plots.line("muon"))
right.set(xlabel="singular value, by size", ylim=(0, 1.6))
right.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Exercises

# %% tags=["checks"]


def check_cubic(coefficients):
    """Exercise 1"""
    a, b = (float(each) for each in coefficients)
    assert np.isclose(a + b, 1), f"one should stay one: p(1) is {a + b:.3g}"
    assert np.isclose(a + 3 * b, 0), f"near one the error should be squared: p'(1) is {a + 3 * b:.3g}"


def check_best_cubic(best_cubic):
    """Exercise 2"""
    for low in (0.05, 0.3, 0.8):
        a, b = (float(each) for each in best_cubic(low))
        s = np.linspace(low, 1, 2001)
        ours = np.abs(a * s + b * s**3 - 1).max()
        best = np.abs(odd_polynomials.value(odd_polynomials.best(low, 1.0, 3), s) - 1).max()
        assert ours < best * 1.001, f"on [{low}, 1] yours is up to {ours:.4f} from 1, and {best:.4f} is possible"


# %% [markdown]
# **1. The classical cubic.** Find $p(s) = a s + b s^3$ that leaves $s = 1$ where it is and has slope zero there. Such a
# step squares a small error. Its slope at zero is why nobody uses it first.

# %%
a_and_b = (2.0, -1.0)  # not it

grade(check_cubic, a_and_b)

# %% tags=["solution"]
# p(1) = a + b = 1 and p'(1) = a + 3 b = 0.
classical = (1.5, -0.5)

assert grade(check_cubic, classical)
np.testing.assert_allclose(jt.coefficients.cubic(1).polynomials[0][:2], classical)

# %% [markdown]
# **2. The best cubic.** Two coefficients and an error need three alternating points on $[l, 1]$: the ends and the
# maximum between them. Solve $p(l) = 1 - E$, $p(e) = 1 + E$, $p(1) = 1 - E$ with $p'(e) = 0$. It has a closed form.


# %%
def best_cubic(low):
    """(a, b) of the odd cubic closest to 1 on [low, 1]."""
    return 1.5, -0.5  # best for an interval that is a point


grade(check_best_cubic, best_cubic)

# %% tags=["solution"]


def best_cubic_solution(low):
    """The ends agree: a = -b (1 + l + l^2). The top is at e^2 = -a / 3b. Then p(e) + p(1) = 2 gives b."""
    e = np.sqrt((1 + low + low**2) / 3)
    b = -2 / (2 * e**3 + low + low**2)
    return -b * 3 * e**2, b


assert grade(check_best_cubic, best_cubic_solution)

# %% [markdown]
# ## Papers
#
# Jordan et al. 2024, [Muon](https://kellerjordan.github.io/posts/muon/), with the objective of 3.4445. Amsel et al.
# 2025, [Polar Express](https://arxiv.org/abs/2505.16932). Bernstein 2025, [Deriving
# Muon](https://jeremybernste.in/writing/deriving-muon). Bernstein & Newhouse 2024, [Old Optimizer, New
# Norm](https://arxiv.org/abs/2409.20325). Gupta, Koren & Singer 2018, [Shampoo](https://arxiv.org/abs/1802.09568). Liu
# et al. 2025, [Muon is Scalable for LLM Training](https://arxiv.org/abs/2502.16982). Higham 2008, [Functions of
# Matrices](https://doi.org/10.1137/1.9780898717778), chapter 8, for the nearest orthogonal matrix.
