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
# # 1. SGD and the landscape
#
# **Gradient descent is one line. Where does it end, how fast does it get there, and what does noise change?** One
# number decides: the learning rate, against the curvature of the ground.
#
# *20 minutes to read, seconds to run. Before it: nothing but derivatives.*

# %% tags=["setup"]
import dataclasses
import inspect

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxopt_tour as jt
from jaxopt_tour.problems.data.datasets import fashion_mnist
from jaxopt_tour.problems.landscapes import quadratic, styblinski_tang
from jaxopt_tour.problems.stationary import minima
from jaxopt_tour.tour import plots
from jaxopt_tour.tour.exercises import grade
from jaxopt_tour.tour.rollout import rollout, sweep

# Steps on two numbers are quickest on a CPU, whatever else there is.
jax.config.update("jax_default_device", jax.devices("cpu")[0])

# %% tags=["picture"]
bowl = quadratic(condition_number=25.0)
rates = {"too small": 0.02, "good": 0.2, "best": 2 / 5.2, "too large": 0.41}
runs = sweep(jt.sgd, bowl, 60, learning_rates=jnp.array(list(rates.values())))

figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained", sharey=True)
for index, (ax, (word, eta)) in enumerate(zip(axes, rates.items(), strict=True)):
    one = jax.tree.map(lambda leaf, index=index: leaf[index], runs)
    plots.trajectories(plots.contours(ax, bowl), bowl, {"sgd": one}, until=25)
    ax.set(title=f"{word}: η = {eta:.3g}", ylabel="y" if index == 0 else "")
plt.show()

# %% [markdown]
# One bowl, 25 times steeper across than along, and 25 steps at four rates. The best rate bounces in the steep direction
# and creeps in the flat one, both equally fast.
#
# ## The rule
#
# Near $\theta$ the loss is nearly $f(\theta) + g^\top d$ with $g = \nabla f(\theta)$. That falls without end along
# $-g$, so pay for the length of the step and minimize $g^\top d + \frac{1}{2\eta} |d|^2$. The derivative with respect
# to $d$ is $g + d/\eta$; it is zero at
#
# $$d = -\eta\, g .$$
#
# *Stochastic* gradient descent takes for $g$ an estimate with the right mean. This is the library's:

# %%
print(inspect.getsource(jt.sgd))

# %% [markdown]
# ## The landscape
#
# Styblinski-Tang, $f(x) = \frac12 \sum_i (x_i^4 - 16 x_i^2 + 5 x_i)$: the same double well along each of two
# coordinates. Its minima are the combinations of the minima of one coordinate, so there are four, and one is the
# lowest.

# %%
landscape = styblinski_tang()
for point in minima(landscape):
    print(f"{point.kind:15} at {np.round(point.params, 4)}  f = {point.value:.3f}")

assert [point.kind for point in minima(landscape)] == ["global minimum"] + 3 * ["local minimum"]

# %% [markdown]
# ## A run
#
# `rollout` runs any Optax optimizer as one compiled loop and keeps every parameter, gradient and update.

# %%
run = rollout(jt.sgd(0.02), landscape, steps=1200)

np.testing.assert_allclose(run.update, -0.02 * run.gradient[:-1], rtol=1e-6)  # every step is -eta g

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
plots.trajectories(plots.mark_minima(plots.contours(left, landscape), landscape), landscape, {"sgd": run})
left.legend(loc="center", fontsize=8)
left.set_aspect("equal")
plots.losses(right, landscape, {"sgd": run}).set_xlim(0, 30)
plt.show()

# %% [markdown]
# SGD goes downhill from where it is and stays in the first valley, which is not the lowest.

# %%
print("ends at", run.params[-1], "with f =", run.loss[-1])
nearest = min(minima(landscape), key=lambda point: np.linalg.norm(point.params - run.params[-1]))
assert nearest.kind == "local minimum"
assert np.linalg.norm(nearest.params - run.params[-1]) < 1e-3

# %% [markdown]
# ## The learning rate
#
# Near a minimum the loss is a bowl. Along an axis with curvature $\lambda$ the gradient is $g = \lambda e$, with $e$
# the distance from the minimum, and a step makes
#
# $$e_{t+1} = (1 - \eta\lambda)\, e_t .$$
#
# It converges if $\eta < 2/\lambda$ for the *largest* curvature, and then the *smallest* curvature takes its time.
# The best compromise is $\eta = 2/(\lambda_{\max} + \lambda_{\min})$. The bowl of the picture has
# curvatures 5 and 0.2.

# %%
steps = np.arange(61)
for path, eta in zip(np.asarray(runs.params), rates.values(), strict=True):
    by_formula = np.asarray(bowl.start) * np.stack([1 - eta * 5, np.full((), 1 - eta * 0.2)]) ** steps[:, None]
    np.testing.assert_allclose(path, by_formula, rtol=1e-3, atol=1e-5)  # (1 - eta lambda)^t in each coordinate
assert runs.loss[3, -1] > runs.loss[3, 0]  # beyond 2 / 5 = 0.4 it diverges

# %% [markdown]
# ## The units of a step
#
# A loss ten times larger has a gradient ten times longer, and SGD makes a step ten times longer: the learning rate
# has to know the scale of the loss. Most of the rules in the chapters to come remove that.

# %%
louder = dataclasses.replace(landscape, fn=lambda x: 10 * landscape.fn(x))
one_step = rollout(jt.sgd(1e-4), landscape, 1).update
np.testing.assert_allclose(rollout(jt.sgd(1e-4), louder, 1).update, 10 * one_step, rtol=1e-6)

# %% [markdown]
# ## Noise
#
# With noise of standard deviation $\sigma$ in the gradient, $e_{t+1} = (1 - \eta\lambda) e_t - \eta\sigma n_t$ never
# settles. Its variance $s$ does, where $s = (1 - \eta\lambda)^2 s + \eta^2\sigma^2$:
#
# $$s = \frac{\eta\,\sigma^2}{\lambda\,(2 - \eta\lambda)} .$$
#
# So a smaller rate ends closer, and that is why rates are lowered during training.

# %%
noisy, noise = bowl.with_noise(3.0), 3.0
etas = np.array([0.03, 0.1, 0.3])
many = sweep(jt.sgd, noisy, 400, learning_rates=jnp.array(etas), seeds=jnp.arange(200))
measured = np.var(np.asarray(many.params)[:, :, 300:, 0], axis=(1, 2))  # of x, whose curvature is 5
expected = etas * noise**2 / (5 * (2 - etas * 5))
print("measured", measured, "\nformula ", expected)
np.testing.assert_allclose(measured, expected, rtol=0.1)  # 20,000 draws, of which neighbors are alike

figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained", sharey=True)
for ax, eta, path, variance in zip(axes, etas, np.asarray(many.params)[:, 0, :, 0], expected, strict=True):
    ax.axhspan(-2 * variance**0.5, 2 * variance**0.5, color="#d3dce5", label="± 2 √s")
    ax.plot(path, linewidth=0.8, **plots.line("sgd"))
    ax.set(xlabel="step", title=f"η = {eta}")
axes[0].set_ylabel("x")
axes[0].legend(loc="lower right", frameon=False)
plt.show()

# %% [markdown]
# ## Where the noise comes from
#
# In training the gradient $g$ is a mean over all $N$ examples, and a step takes the mean over a *mini-batch* of $B$
# drawn at random. Each draw has the mean $g$, so the mini-batch gradient $g_B$ is unbiased. The variance of a mean of
# $B$ independent draws is that of one, divided by $B$:
#
# $$\mathbb E\, g_B = g, \qquad \mathbb E\, |g_B - g|^2 = \frac1B \cdot \frac1N \sum_i |g_i - g|^2 .$$
#
# Four times the batch halves the error and costs four times as much. Here are softmax regression's gradients of 4,000
# images, in 7 x 7 pixels, and 500 mini-batches of each size.

# %%
data = fashion_mnist()
pixels = data.train_images.reshape(-1, 7, 4, 7, 4).mean((2, 4)).reshape(-1, 49) / 255


def loss_of_one(weight, image, label):
    """Cross-entropy of one image."""
    return -jax.nn.log_softmax(image @ weight)[label]


examples = jax.vmap(jax.grad(loss_of_one), (None, 0, 0))(
    jnp.zeros((49, 10)), jnp.asarray(pixels, jnp.float32), jnp.asarray(data.train_labels)
)
examples = np.asarray(examples, np.float64).reshape(len(pixels), -1)  # (4000, 490): a gradient for every image
g = examples.mean(0)
of_one = np.square(examples - g).sum(1).mean()

rng = np.random.default_rng(0)
for batch in (1, 4, 16, 64):
    how_often = rng.multinomial(batch, np.full(len(examples), 1 / len(examples)), size=500)
    drawn = how_often @ examples / batch  # (500, 490): drawn with replacement
    variance = np.square(drawn - g).sum(1).mean()
    print(f"B = {batch:2}: variance {variance:.4f}, by the formula {of_one / batch:.4f}")
    np.testing.assert_allclose(variance, of_one / batch, rtol=0.1)  # of 500 draws
    assert np.square(drawn.mean(0) - g).sum() < 2 * of_one / batch / 500  # unbiased: what is left is their noise

# %% [markdown]
# ## What a batch costs
#
# A larger batch is a better gradient at a higher price. Which one is worth it? Train the same softmax regression on
# 8,000 gradients of single images, in batches of four sizes, each at the best of five rates. Then do it again with 30
# steps.

# %%
labels, images = np.eye(10)[data.train_labels], pixels


def softmax_gradient(W, x, y):
    """Of the mean cross-entropy; y is one-hot."""
    p = np.exp(x @ W)
    return x.T @ (p / p.sum(1, keepdims=True) - y) / len(x)


def trained(batch, rate, steps):
    """The loss over all images after so many steps at a constant rate."""
    W, rng = np.zeros((49, 10)), np.random.default_rng(1)
    for chosen in rng.integers(len(images), size=(steps, batch)):
        W -= rate * softmax_gradient(W, images[chosen], labels[chosen])
    logits = images @ W
    return float(np.mean(np.log(np.exp(logits).sum(1)) - np.sum(labels * logits, 1)))


tried = (0.03, 0.1, 0.3, 1.0, 3.0)
same_images = {batch: min(trained(batch, rate, 8000 // batch) for rate in tried) for batch in (4, 16, 64, 256)}
same_steps = {batch: min(trained(batch, rate, 30) for rate in tried) for batch in (4, 16, 64, 256)}
print("loss after 8,000 images:", {batch: round(loss, 3) for batch, loss in same_images.items()})
print("loss after 30 steps:    ", {batch: round(loss, 3) for batch, loss in same_steps.items()})
assert same_images[16] < same_images[256] and same_steps[256] < same_steps[4]

# %% [markdown]
# With the same images, batches of 4 to 64 come about equally far: noise is not what limits them. At 256 too few steps
# are left. With the same steps the largest batch comes furthest, which is what counts where a device computes a batch
# at once. Between the two is the batch to take, and it depends on the noise.

# %% [markdown]
# ## Change one thing
#
# Change the start and run the cell: from where does SGD reach the global minimum?

# %%
start = (4.1, 4.5)  # try (-1, -1), (0.1, 4), (0.2, 0.2)

run = rollout(jt.sgd(0.02), landscape, 300, start=start)
figure, ax = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
plots.trajectories(plots.mark_minima(plots.contours(ax, landscape), landscape), landscape, {"sgd": run})
ax.set_aspect("equal")
plt.show()
print("ends at", run.params[-1], "with f =", run.loss[-1])

# %% [markdown]
# ## Exercises
#
# Each cell checks your answer and says what is wrong with it. A solution is folded below.

# %% tags=["checks"]


def check_best_rate(best_rate):
    """Exercise 1"""
    for curvatures in ([5.0, 0.2], [100.0, 1.0, 30.0], [2.0]):
        eta = float(best_rate(np.array(curvatures)))
        left = np.abs(1 - np.array([eta, *np.geomspace(1e-3, 3, 4000)])[:, None] * np.array(curvatures)).max(1)
        assert left[0] <= left.min() + 1e-3, f"for {curvatures} yours leaves {left[0]:.4f} a step, not {left.min():.4f}"


def check_floor(rate_for):
    """Exercise 2"""
    for curvature, sigma, spread in ((5.0, 3.0, 0.2), (1.0, 1.0, 0.5), (20.0, 4.0, 0.05)):
        eta = float(rate_for(curvature, sigma, spread))
        s = 0.0
        for _ in range(5000):
            s = (1 - eta * curvature) ** 2 * s + eta**2 * sigma**2
        assert abs(s**0.5 - spread) < 1e-3, f"x ends with a standard deviation of {s**0.5:.3f}, not {spread}"


# %% [markdown]
# **1. The best rate.** Given all curvatures of a bowl, return the rate at which its slowest direction is fastest.


# %%
def best_rate(curvatures):
    """One number, for an array of curvatures."""
    return 1 / curvatures.max()  # not it


grade(check_best_rate, best_rate)

# %% tags=["solution"]


def best_rate_solution(curvatures):
    """Steepest and flattest direction shrink equally: 1 - eta mu = eta L - 1."""
    return 2 / (curvatures.max() + curvatures.min())


assert grade(check_best_rate, best_rate_solution)

# %% [markdown]
# **2. A floor to order.** Gradients have noise of standard deviation `sigma`. Which rate leaves $x$ with a standard
# deviation of `spread` about the minimum? Solve the formula for $s$.


# %%
def rate_for(curvature, sigma, spread):
    """The rate that ends at this spread."""
    return spread / sigma  # not it


grade(check_floor, rate_for)

# %% tags=["solution"]


def rate_for_solution(curvature, sigma, spread):
    """s = spread^2 in s lambda (2 - eta lambda) = eta sigma^2."""
    s = spread**2
    return 2 * s * curvature / (sigma**2 + s * curvature**2)


assert grade(check_floor, rate_for_solution)

# %% [markdown]
# ## Papers
#
# Robbins & Monro 1951, [A Stochastic Approximation Method](https://doi.org/10.1214/aoms/1177729586). Bottou, Curtis &
# Nocedal 2018, [Optimization Methods for Large-Scale Machine Learning](https://arxiv.org/abs/1606.04838).
