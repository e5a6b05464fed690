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
# # 6. Norms and duality
#
# **A gradient is not a step. Which step of a given size lowers the loss most?** The answer depends on what "size"
# means: one norm gives SGD, one gives sign descent, one gives Muon, one gives the rule for embeddings.
#
# *25 minutes to read, seconds to run. Before it: [chapter 1](01_sgd.ipynb). It uses singular values, nothing else.*

# %% tags=["setup"]
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour.optimizers import dual_norm
from jaxopt_tour.problems.matrix_landscapes import matrix_regression
from jaxopt_tour.tour import plots
from jaxopt_tour.tour.exercises import grade
from jaxopt_tour.tour.rollout import rollout

# Steps on small matrices are quickest on a CPU, whatever else there is.
jax.config.update("jax_default_device", jax.devices("cpu")[0])

# %% tags=["picture"]
angle = np.linspace(0, 2 * np.pi, 400)
circle = np.stack([np.cos(angle), np.sin(angle)])
square = np.array([[1, -1, -1, 1, 1], [1, 1, -1, -1, 1]])
balls = {
    "l2: SGD": (circle, "entry 1", "entry 2"),
    "l∞: sign descent": (square, "entry 1", "entry 2"),
    "spectral: Muon": (square, "singular value 1", "singular value 2"),
    "one-to-RMS: embeddings": (square, "RMS of row 1", "RMS of row 2"),
}
g = np.array([1.5, 0.4])  # what the panel's axes say of the gradient
figure, axes = plt.subplots(1, 4, figsize=(14, 3.9), layout="constrained")
for ax, (title, (ball, x, y)) in zip(axes, balls.items(), strict=True):
    best = -g / np.linalg.norm(g) if ball is circle else -np.sign(g)
    grid = np.meshgrid(*2 * [np.linspace(-1.8, 1.8, 50)])
    ax.contour(*grid, g[0] * grid[0] + g[1] * grid[1], 12, colors="0.85", linewidths=0.8)
    ax.fill(*ball, color="#d3dce5", zorder=1)
    ax.annotate("", g, (0, 0), arrowprops={"arrowstyle": "->", "color": "0.4", "linewidth": 1.6})
    ax.text(*(g + [-0.1, 0.14]), "gradient", color="0.4", ha="center")
    ax.annotate("", best, (0, 0), arrowprops={"arrowstyle": "->", "color": "#d55e00", "linewidth": 2.4})
    ax.text(*(1.08 * best - [0, 0.3]), "step", color="#d55e00", ha="center")
    ax.set(title=title, xlabel=x, ylabel=y, xlim=(-1.9, 1.9), ylim=(-1.9, 1.9), aspect="equal", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Every blue ball holds the steps of size at most one; thin lines are steps of equal effect. The best step is where the
# last line touches the ball. On the circle it is the direction of the gradient. On a square it is a corner: both
# coordinates at their bound, however small one of them is in the gradient. The three squares differ in what their
# coordinates are: entries, singular values, rows.
#
# ## One question
#
# Near the weights $\theta$ the loss is nearly $f(\theta) + \langle G, D \rangle$, with the gradient $G$, the step $D$
# and $\langle G, D \rangle = \sum_{ij} G_{ij} D_{ij}$. Among all steps of norm at most one, how much can that fall? By
# the *dual norm* of the gradient:
#
# $${\| G \|}_* = \max_{\| D \| \le 1} \langle G, D \rangle .$$
#
# The ball is symmetric, so the least value is $-{\| G \|}_*$, at minus the maximizer. Call the maximizer $D(G)$. The
# step of norm $\eta$ that lowers the linear model most is $-\eta\, D(G)$.
#
# ## Ball or price
#
# Chapter 1 had no ball. It paid for length, and that leads to the same direction under every norm:
#
# $$\min_D\ \langle G, D \rangle + \frac{1}{2\eta} {\| D \|}^2 \quad\text{is attained at}\quad
#   D = -\eta\, {\| G \|}_*\, D(G) .$$
#
# *Proof.* Write $D = -c\,T$ with $c \ge 0$ and $\| T \| = 1$. The value is $-c \langle G, T \rangle + c^2 / (2 \eta)$,
# at least $-c {\| G \|}_* + c^2 / (2 \eta)$, with equality at $T = D(G)$. The right side is least at $c = \eta {\| G
# \|}_*$. $\square$
#
# So the norm decides the direction. The price adds one number, the dual norm, as the length. Optimizers with momentum
# and a schedule usually leave it out: the schedule says how long steps are. `jt.scale_by_dual_norm` is $D(G)$. Apart
# from polar factors, all of it is here:

# %%
print(inspect.getsource(dual_norm._direction))

# %% [markdown]
# ## Five norms, five steps
#
# Kernels are stored as (fan-in, fan-out), so row $i$ holds the weights of input $i$. Let $G = U S V^\top$ with singular
# values $s_1 \ge s_2 \ge \dots$. Let $\alpha = \sqrt{\mathrm{out} / \mathrm{in}}$, and let
# $\rho_i$ be the root mean square of row $i$.
#
# | norm | size of a step | dual norm | $D(G)$ | known as |
# |---|---|---|---|---|
# | l2 | $\sqrt{\sum D_{ij}^2}$ | $\sqrt{\sum G_{ij}^2}$ | $G / \| G \|_F$ | SGD |
# | l-infinity | $\max \vert D_{ij} \vert$ | $\sum \vert G_{ij} \vert$ | $\mathrm{sign}\, G$ | sign descent |
# | spectral | $\sigma_1(D)$ | $\sum s_k$ | $U V^\top$ | Muon |
# | RMS-to-RMS | $\sigma_1(D) / \alpha$ | $\alpha \sum s_k$ | $\alpha\, U V^\top$ | Muon, scaled |
# | one-to-RMS | $\max_i \rho_i(D)$ | $\mathrm{out} \sum \rho_i(G)$ | $G_i / \rho_i(G)$ | embedding |
#
# *Proof of l2.* Cauchy-Schwarz, $\langle G, D \rangle \le {\| G \|}_F {\| D \|}_F$, with equality for a multiple of
# $G$.
#
# *Proof of l-infinity.* $\langle G, D \rangle = \sum G_{ij} D_{ij}$ and no $D_{ij}$ exceeds one. Every term is at most
# $\vert G_{ij} \vert$, and $D_{ij} = \mathrm{sign}\, G_{ij}$ attains all of them at once.
#
# *Proof of spectral.* $\langle G, D \rangle = \sum_k s_k\, u_k^\top D\, v_k$. The vectors $u_k$ and $v_k$ have length
# one, so $u_k^\top D\, v_k \le \sigma_1(D) \le 1$. At $D = U V^\top$ every one of these numbers is one. The bound $\sum
# s_k$ is called the nuclear norm.
#
# *Proof of RMS-to-RMS.* Its ball is the spectral ball, scaled by $\alpha$. So are maximizer
# and maximum.
#
# *Proof of one-to-RMS.* The ball bounds each row by itself, $\vert D_i \vert \le \sqrt{\mathrm{out}}$. Row by row it is
# l2 with another radius. $\square$
#
# The same in code: sizes of a step first, then the dual norms of the table.

# %%
fan_in, fan_out = 8, 12
singular = lambda D: jnp.linalg.svd(D, compute_uv=False)  # noqa: E731
row = lambda D: jnp.linalg.norm(D, axis=-1)  # noqa: E731
norms = {
    "l2": jnp.linalg.norm,
    "linf": lambda D: jnp.abs(D).max(),
    "spectral": lambda D: singular(D)[0],
    "rms_to_rms": lambda D: (fan_in / fan_out) ** 0.5 * singular(D)[0],
    "one_to_rms": lambda D: row(D).max() / fan_out**0.5,
}
duals = {
    "l2": jnp.linalg.norm,
    "linf": lambda G: jnp.abs(G).sum(),
    "spectral": lambda G: singular(G).sum(),
    "rms_to_rms": lambda G: (fan_out / fan_in) ** 0.5 * singular(G).sum(),
    "one_to_rms": lambda G: fan_out**0.5 * row(G).sum(),
}


def direction(norm, G):
    """D(G), with the exact polar factor where one is needed."""
    tx = jt.scale_by_dual_norm(norm, orthogonalizer="exact", axes=jt.MatrixAxes(fan_in=0, fan_out=1))
    return tx.update(G, tx.init(G))[0]


G = jax.random.normal(jax.random.key(0), (fan_in, fan_out)) * jnp.geomspace(1, 0.03, fan_in)[:, None]
U, S, Vt = jnp.linalg.svd(G, full_matrices=False)
by_hand = {
    "l2": G / jnp.linalg.norm(G),
    "linf": jnp.sign(G),
    "spectral": U @ Vt,
    "rms_to_rms": (fan_out / fan_in) ** 0.5 * U @ Vt,
    "one_to_rms": G / jnp.sqrt(jnp.mean(G**2, axis=1, keepdims=True)),
}
others = jax.random.normal(jax.random.key(1), (2000, fan_in, fan_out))
for name, norm in norms.items():
    D = direction(name, G)
    np.testing.assert_allclose(D, by_hand[name], atol=1e-4)  # the library's direction is the one of the table
    np.testing.assert_allclose(norm(D), 1, rtol=1e-4)  # on the ball
    np.testing.assert_allclose(jnp.vdot(G, D), duals[name](G), rtol=1e-4)  # where the dual norm is attained
    on_the_ball = others / jax.vmap(norm)(others)[:, None, None]
    best_other = float(jnp.sum(G * on_the_ball, axis=(1, 2)).max())
    print(f"{name:10} falls by {duals[name](G):6.2f}; the best of 2,000 random steps of that norm by {best_other:5.2f}")
    assert best_other < 0.9 * duals[name](G)

# %% [markdown]
# ## The optimizers fall out
#
# SGD pays under l2, and ${\| G \|}_F \cdot G / {\| G \|}_F$ is the gradient itself. Sign descent takes the ball of
# l-infinity; so does Adam on its first step, or without memory. Muon without momentum takes the spectral ball, and its
# shape factor `"spectral"` makes that the RMS-to-RMS ball. Rows of an embedding each get a step of their own.

# %%
axes_of_G = jt.MatrixAxes(fan_in=0, fan_out=1)


def first_update(tx):
    """What a rule makes of the gradient G."""
    return tx.update(G, tx.init(G), G)[0]


eta = 0.1
sgd, priced = first_update(jt.sgd(eta)), -eta * duals["l2"](G) * direction("l2", G)
np.testing.assert_allclose(sgd, priced, rtol=1e-5)
np.testing.assert_allclose(first_update(jt.signsgd(eta)), -eta * direction("linf", G), rtol=1e-6)
np.testing.assert_allclose(first_update(jt.scale_by_adam(eps=0.0)), direction("linf", G), rtol=1e-4)
muon = jt.scale_by_muon(beta=0.0, nesterov=False, orthogonalizer="exact", axes=axes_of_G)
np.testing.assert_allclose(first_update(muon), direction("spectral", G), atol=1e-5)
scaled = optax.chain(muon, jt.scale_by_matrix_shape("spectral", axes=axes_of_G))
np.testing.assert_allclose(first_update(scaled), direction("rms_to_rms", G), atol=1e-5)

# The price of a step, too: no other step does better than the one of the proof.
for name, norm in norms.items():
    paid = lambda D, norm=norm: jnp.vdot(G, D) + norm(D) ** 2 / (2 * eta)  # noqa: E731
    ours = paid(-eta * duals[name](G) * direction(name, G))
    np.testing.assert_allclose(ours, -eta / 2 * duals[name](G) ** 2, rtol=1e-3)
    nearby = -eta * duals[name](G) * direction(name, G) * (1 + 0.3 * others)
    assert ours < jax.vmap(paid)(nearby).min()

# %% [markdown]
# ## What a layer does: RMS-to-RMS
#
# Why would one measure a weight matrix by its singular values? Because of what a layer does. Its inputs are vectors
# whose entries have about size one, and so should its outputs. The natural size of a change $D$ is the most by which it
# can change an output:
#
# $$\max_x\ \frac{\mathrm{RMS}(x D)}{\mathrm{RMS}(x)}
#   = \max_x\ \frac{\vert x D \vert / \sqrt{\mathrm{out}}}{\vert x \vert / \sqrt{\mathrm{in}}}
#   = \frac{\sigma_1(D)}{\alpha} .$$
#
# That is the RMS-to-RMS norm. A step of norm $\eta$ changes no output by more than $\eta$ times its input, at any
# width. The bound is attained at the first singular vector.

# %%
rms = lambda x: jnp.sqrt(jnp.mean(jnp.square(x), axis=-1))  # noqa: E731
D = jax.random.normal(jax.random.key(2), (fan_in, fan_out))
x = jax.random.normal(jax.random.key(3), (2000, fan_in))
amplified = rms(x @ D) / rms(x)
top = jnp.linalg.svd(D)[0][:, 0]
print(f"norm {norms['rms_to_rms'](D):.3f}, largest of 2,000 random inputs {amplified.max():.3f}")
assert amplified.max() < norms["rms_to_rms"](D)
np.testing.assert_allclose(rms(top @ D) / rms(top), norms["rms_to_rms"](D), rtol=1e-4)

# %% [markdown]
# Here is what that buys. A layer of growing width gets one step of the same rate, from the gradient of a batch of 16.
# Under signs the outputs of that batch change more and more: a rate that suits one width is too large for the next.
# Under RMS-to-RMS the change has a bound that does not know the width.

# %%
widths, eta = (32, 64, 128, 256, 512), 0.1
change = {"linf": [], "rms_to_rms": []}
for width in widths:
    keys = jax.random.split(jax.random.key(width), 2)
    inputs, errors = jax.random.normal(keys[0], (16, width)), jax.random.normal(keys[1], (16, width))
    gradient = inputs.T @ errors / 16
    for name, sizes in change.items():
        sizes.append(float(rms(inputs @ (eta * direction(name, gradient))).max()))
print({name: np.round(sizes, 2) for name, sizes in change.items()})
assert max(change["rms_to_rms"]) < eta * 1.5  # inputs have RMS of about 1
assert change["linf"][-1] > 8 * change["linf"][0]

figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for name, sizes, style in (
    ("sign descent", change["linf"], plots.line("signsgd")),
    ("RMS-to-RMS", change["rms_to_rms"], plots.line("muon")),
):
    ax.plot(widths, sizes, "o", label=name, **style)
ax.set(xscale="log", yscale="log", xlabel="width of the layer", ylabel="change of the outputs, RMS")
ax.set_xticks(widths, widths)
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## What an embedding does: one-to-RMS
#
# An embedding never sees a mixture. Its input is one token, a one-hot vector, and its output is a row. The most that a
# change $D$ can do is $\max_i \mathrm{RMS}(D_i)$. The best step gives every row that has a gradient the same size,
# however rare its token is. SGD moves the row of a rare token as little as the token is rare.

# %%
counts = jnp.array([1000.0, 100.0, 10.0, 1.0])
table = counts[:, None] / counts.sum() * jax.random.normal(jax.random.key(4), (4, 16))
for name in ("l2", "one_to_rms"):
    moved = rms(direction(name, table))
    print(f"{name:10} rows of tokens seen 1000, 100, 10 and 1 times move by", np.round(moved, 4))
np.testing.assert_allclose(rms(direction("one_to_rms", table)), 1, rtol=1e-4)
assert rms(direction("l2", table))[0] > 300 * rms(direction("l2", table))[3]

# %% [markdown]
# ## A whole network: the modular norm
#
# A network has many matrices, each with its norm ${\| \cdot \|}_l$. How should their steps be balanced? Take layers one
# after another whose weights have norm at most one, so that no layer enlarges its input. To first order a step changes
# the output $y$ by one term per layer, and each term passes through the others:
#
# $$\mathrm{RMS}(\Delta y) \le \sum_l {\| D_l \|}_l .$$
#
# Give layer $l$ a share $r_l$ of the whole, with $\sum_l r_l = 1$, and measure a step of the network by
#
# $$\| D \| = \max_l\ \frac{{\| D_l \|}_l}{r_l} , \qquad {\| G \|}_* = \sum_l r_l\, {\| G_l \|}_{l,*} ,
#   \qquad D(G)_l = r_l\, D_l(G_l) .$$
#
# *Proof.* The ball bounds each layer by itself, ${\| D_l \|}_l \le r_l$, and $\langle G, D \rangle$ is a sum over
# layers. So each is maximized alone: by $r_l D_l(G_l)$, with the value $r_l {\| G_l \|}_{l,*}$. A step of norm $\eta$
# changes the output by at most $\eta \sum_l r_l = \eta$. $\square$
#
# This is the modular norm of a chain; the paper builds it for any composition, with the $r_l$ as the masses of modules.
# In code it is one transformation per role. `jt.scion` takes that step of the momentum.

# %%
shapes = {"embed": (20, 16), "layer_1": (16, 16), "layer_2": (16, 24)}
kinds = {"embed": "one_to_rms", "layer_1": "rms_to_rms", "layer_2": "rms_to_rms"}
keys = jax.random.split(jax.random.key(5), 6)
# The direction of a random matrix has norm one: weights for which the bound holds.
weights = {
    name: direction(kinds[name], jax.random.normal(key, shapes[name]))
    for name, key in zip(shapes, keys[:3], strict=True)
}
slopes = {name: jax.random.normal(key, shapes[name]) for name, key in zip(shapes, keys[3:], strict=True)}
share = {"embed": 0.2, "layer_1": 0.4, "layer_2": 0.4}

network_step = jt.multi_transform(
    {
        name: optax.chain(jt.scale_by_dual_norm(kind, orthogonalizer="exact", axes=axes_of_G), optax.scale(share[name]))
        for name, kind in kinds.items()
    },
    routing={name: name for name in shapes},
)
D, _ = network_step.update(slopes, network_step.init(weights), weights)


def modular_dual(slopes):
    """The sum over layers, each dual norm by its formula."""
    total = 0.0
    for name, slope in slopes.items():
        (rows, columns), kind = slope.shape, kinds[name]
        own = (
            row(slope).sum() * columns**0.5 if kind == "one_to_rms" else singular(slope).sum() * (columns / rows) ** 0.5
        )
        total += share[name] * own
    return total


falls = sum(float(jnp.vdot(slopes[name], D[name])) for name in shapes)
np.testing.assert_allclose(falls, modular_dual(slopes), rtol=1e-4)


def network(weights):
    """The outputs for all 20 tokens: (20, 24)."""
    return weights["embed"] @ weights["layer_1"] @ weights["layer_2"]


_, first_order = jax.jvp(network, (weights,), (D,))
print(f"a step of norm 1 changes outputs by at most {rms(first_order).max():.3f}, to first order")
assert rms(first_order).max() <= 1

# %% [markdown]
# ## Change one thing
#
# One landscape, a 2 x 2 weight from chapter 7, and steps of equal norm. Which norm gets down first?

# %%
norm = "spectral"  # try "l2", "linf", "one_to_rms", "row"

steps = optax.linear_schedule(0.4, 0.0, 40)
tx = optax.chain(jt.scale_by_dual_norm(norm, axes=axes_of_G), optax.scale_by_learning_rate(steps))
run = rollout(tx, matrix_regression(), 40)
print(f"{norm}: from {run.loss[0]:.2f} to {run.loss[-1]:.5f}")

# %% [markdown]
# ## Exercises
#
# Each cell checks your answer and says what is wrong with it. A solution is folded below.

# %% tags=["checks"]


def check_l1(step):
    """Exercise 1"""
    for seed in range(5):
        g = np.random.default_rng(seed).standard_normal(9)
        d = np.asarray(step(g), np.float64)
        assert d.shape == g.shape, "return an array shaped like g"
        assert np.isclose(np.abs(d).sum(), 1), f"the step should have l1 norm 1, it has {np.abs(d).sum():.3g}"
        assert np.isclose(g @ d, np.abs(g).max()), f"<g, d> is {g @ d:.3f}, and {np.abs(g).max():.3f} is possible"


def check_nuclear(step):
    """Exercise 2"""
    for seed in range(5):
        G = np.random.default_rng(seed).standard_normal((4, 7))
        D = np.asarray(step(G), np.float64)
        size, best = np.linalg.svd(D, compute_uv=False).sum(), np.linalg.svd(G, compute_uv=False)[0]
        assert D.shape == G.shape, "return a matrix shaped like G"
        assert np.isclose(size, 1), f"the step should have nuclear norm 1, it has {size:.3g}"
        assert np.isclose(np.sum(G * D), best), f"<G, D> is {np.sum(G * D):.3f}, and {best:.3f} is possible"


# %% [markdown]
# **1. The diamond.** The l1 norm is $\sum_i \vert d_i \vert$. Which step of l1 norm one has the largest $\langle g, d
# \rangle$? Draw the ball first: where does the last line touch it?


# %%
def l1_step(g):
    """The maximizer of <g, d> over the l1 ball."""
    return g / np.abs(g).sum()  # not it


grade(check_l1, l1_step)

# %% tags=["solution"]


def l1_solution(g):
    """All on the entry with the largest gradient: greedy coordinate descent."""
    d = np.zeros_like(g)
    largest = np.argmax(np.abs(g))
    d[largest] = np.sign(g[largest])
    return d


assert grade(check_l1, l1_solution)

# %% [markdown]
# **2. The other way round.** Muon takes the ball of the spectral norm, and the nuclear norm comes out as its dual. Take
# the ball of the nuclear norm, $\sum_k s_k(D) \le 1$. What is $D(G)$? NumPy's `np.linalg.svd` gives $U$, the $s_k$ and
# $V^\top$.


# %%
def nuclear_step(G):
    """The maximizer of <G, D> over matrices whose singular values sum to one."""
    return G / np.linalg.norm(G)  # not it


grade(check_nuclear, nuclear_step)

# %% tags=["solution"]


def nuclear_solution(G):
    """Rank one, the first singular pair: <G, D> is s_1, and the dual of the dual is the norm one began with."""
    U, _, Vt = np.linalg.svd(G)
    return np.outer(U[:, 0], Vt[0])


assert grade(check_nuclear, nuclear_solution)

# %% [markdown]
# ## Papers
#
# Bernstein & Newhouse 2024, [Old Optimizer, New Norm](https://arxiv.org/abs/2409.20325): the question of this chapter
# and its propositions. Bernstein & Newhouse 2024, [Modular Duality in Deep Learning](https://arxiv.org/abs/2410.21265).
# Large et al. 2024, [Scalable Optimization in the Modular Norm](https://arxiv.org/abs/2405.14813). Yang, Simon &
# Bernstein 2023, [A Spectral Condition for Feature Learning](https://arxiv.org/abs/2310.17813). Pethick et al. 2025,
# [Training Deep Learning Models with Norm-Constrained LMOs](https://arxiv.org/abs/2502.07529). Carlson et al. 2015,
# [Preconditioned Spectral
# Descent](https://papers.nips.cc/paper/5795-preconditioned-spectral-descent-for-deep-learning).
