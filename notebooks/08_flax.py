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
# # 8. Routing, and a training step in Flax
#
# **Which parameters of a model are matrices?** A model has embeddings, heads, norms and biases as well. Muon is not for
# those, and neither names nor the number of axes say which is which.
#
# *15 minutes to read, half a minute to run. Before it: [chapter 7](07_muon.ipynb), and a first model in
# [Flax](https://flax.readthedocs.io).*

# %% tags=["setup"]
import inspect

import flax.linen
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from flax.training.train_state import TrainState

import jaxopt_tour as jt
from jaxopt_tour.problems.models import GPT, MLP
from jaxopt_tour.problems.tasks import cnn
from jaxopt_tour.tour import plots
from jaxopt_tour.tour.exercises import grade

# %% tags=["picture"]
model = GPT(vocabulary=76, width=64, heads=2, blocks=1, hidden=176, rngs=nnx.Rngs(0))
by_use = jt.routing.from_function(model, jnp.zeros((2, 16), int))

parameters = {"/".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))}
colors = {"matrix": "#d55e00", "embedding": "#0072b2", "head": "#3391c9", "vector": "#6f7680"}
names = list(parameters)
figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
for place, name in enumerate(names):
    leaf, role = parameters[name], by_use[name].label
    ax.barh(place, leaf.size, color=colors[role])
    ax.text(
        leaf.size * 1.1, place, "1 axis" if leaf.ndim == 1 else f"{leaf.ndim} axes", va="center", size=8, color="0.4"
    )
for role, color in colors.items():
    ax.barh(0, 0, color=color, label=f"{role}: {'Muon' if role == 'matrix' else 'AdamW'}")
ax.set(xscale="log", xlim=(20, 60_000), xlabel="entries", yticks=range(len(names)), yticklabels=names)
ax.invert_yaxis()
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# The parameters of a small GPT, colored by what the model does with them. An embedding with two axes is no matrix
# between hidden layers. Attention kernels with three axes are.
#
# ## By use
#
# `from_function` traces the model without
# running it and looks at what becomes of each parameter: contracted with an activation, looked up, added. The last
# contraction is the head.

# %%
print(by_use)

assert by_use["blocks/0/attention/query/kernel"].label == "matrix"
others = ("embed/embedding", "head/kernel", "norm/scale")
assert [by_use[name].label for name in others] == ["embedding", "head", "vector"]

# %% [markdown]
# Names do not matter. Here is a model whose names say nothing, with its second weight stored as (out, in).

# %%


def nameless(params, tokens):
    """An embedding, a hidden layer, a head."""
    x = params["a"][tokens]
    x = x + jnp.tanh(x @ params["b"].T)
    return x @ params["c"]


params = {"a": jnp.zeros((76, 64)), "b": jnp.zeros((64, 64)), "c": jnp.zeros((64, 76))}
routes = jt.routing.from_function(nameless, params, jnp.zeros((2, 16), int))
print(jt.routing_table(params, usage=routes))
assert {name: route.role for name, route in routes.items()} == {"a": "embedding", "b": "matrix", "c": "head"}
assert routes["b"].axes == jt.MatrixAxes(fan_in=1, fan_out=0)

# %% [markdown]
# ## By name and shape
#
# Without a routing, `jt.muon` reads shapes and names. What has two readings goes to AdamW. `routing_table` shows the
# result before a long run: role, how the parameter is seen as matrices, the factor of its step, and why.

# %%
print(jt.routing_table(model))

# On this model both ways agree.
by_name = jt.routing.resolve(None, nnx.state(model, nnx.Param))
assert {name: route.label for name, route in by_use.items()} == {name: route.label for name, route in by_name.items()}

# %% [markdown]
# ## The training step, in nnx
#
# $\theta \leftarrow \theta - \eta\, u$ is one line of Flax. The data is a draw from Fashion-MNIST that the package
# carries; the model is an MLP, the loss the cross-entropy.

# %%
task, sizes, steps = cnn(batch_size=64), (784, 64, 64, 10), 60
batches = [task.batch(0, step) for step in range(steps)]


def cross_entropy(logits, labels):
    """Mean over the batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@nnx.jit
def train_step(model, optimizer, images, labels):
    """One step: loss, gradients, update."""
    loss, grads = nnx.value_and_grad(lambda model: cross_entropy(model(images.reshape(len(images), -1)), labels))(model)
    optimizer.update(model, grads)
    return loss


def train(tx):
    """Losses of all steps, from the same start."""
    model = MLP(sizes, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    return np.array([train_step(model, optimizer, *batch) for batch in batches])


print(inspect.getsource(MLP))
losses = {name: train(tx) for name, tx in (("adamw", jt.adamw(3e-3)), ("muon", jt.muon(1e-2)))}
for name, values in losses.items():
    print(f"{name:6} first loss {values[0]:.3f}, mean of the last ten {values[-10:].mean():.3f}")
    assert values[-10:].mean() < 0.6 * values[0]

figure, ax = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
for name, values in losses.items():
    ax.plot(values, label=name, **plots.line(name))
ax.set(xlabel="step", ylabel="training loss", ylim=(0, None))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# Two rates chosen by hand on one seed say nothing about which is better; the race, `./tour`, tunes both.
#
# ## What the steps did
#
# `jt.monitored` measures inside the update, here every 20 steps, and `jt.metrics` reads the state as one flat
# dictionary for any logger. The page on monitoring has the list of numbers, and what to do about them.

# %%
model = MLP(sizes, rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, jt.monitored(jt.muon(1e-2), every=20), wrt=nnx.Param)
logged = []
for batch in batches:
    train_step(model, optimizer, *batch)
    metrics = jt.metrics(optimizer.opt_state)
    if not logged or metrics["measured_at"] != logged[-1]["measured_at"]:
        logged.append(metrics)

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for ax, metric in zip(axes, ("update_rms_by_role", "stable_rank"), strict=True):
    for key in [key for key in logged[0] if key.startswith(metric + "/") and not key.endswith("/all")]:
        values = [float(metrics[key]) for metrics in logged]
        ax.plot([float(metrics["measured_at"]) for metrics in logged], values, "o-", label=key.split("/", 1)[1])
    ax.set(title=metric, xlabel="update", ylim=(0, None))
    ax.legend(frameon=False, fontsize=8)
plt.show()
assert [metrics["measured_at"] for metrics in logged] == [1, 21, 41]
print(*jt.diagnose(logged[-1]), sep="\n")

# %% [markdown]
# ## The same step, in linen
#
# The parameters of linen are a dictionary, and `TrainState` carries them. From the same start the losses are the same.

# %%


class LinenMLP(flax.linen.Module):
    """The same layers under linen's API."""

    @flax.linen.compact
    def __call__(self, x):
        """Inputs (B, 784) to logits (B, 10)."""
        for number, width in enumerate(sizes[1:-1]):
            x = flax.linen.relu(flax.linen.Dense(width, name=f"layers_{number}")(x))
        return flax.linen.Dense(sizes[-1], name="head")(x)


@jax.jit
def linen_step(state, images, labels):
    """One step: loss, gradients, update."""

    def loss_of(params):
        return cross_entropy(state.apply_fn({"params": params}, images.reshape(len(images), -1)), labels)

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=grads), loss


start = MLP(sizes, rngs=nnx.Rngs(0))
layers = {f"layers_{number}": layer for number, layer in enumerate(start.layers)} | {"head": start.head}
params = {name: {"kernel": layer.kernel[...], "bias": layer.bias[...]} for name, layer in layers.items()}
state = TrainState.create(apply_fn=LinenMLP().apply, params=params, tx=jt.muon(1e-2))
print(jt.routing_table(params))

linen_losses = []
for batch in batches[:20]:
    state, loss = linen_step(state, *batch)
    linen_losses.append(float(loss))
# The two programs round differently, and training doubles a difference every few steps.
np.testing.assert_allclose(linen_losses[:10], losses["muon"][:10], rtol=0.02)

# %% [markdown]
# ## Said by hand
#
# A route can be given for a parameter or a whole subtree: a label, a `MatrixAxes`, or a function of path and leaf.
# Labels of your own go with `multi_transform`; what is not mentioned goes by name. `"other"` is for every role that has
# no transformation.

# %%
tx = jt.multi_transform(
    {"matrix": jt.scale_by_muon(), "other": jt.scale_by_adam(), "frozen": optax.set_to_zero()},
    routing={"layers_0": "frozen", "head/kernel": jt.MatrixAxes(fan_in=0, fan_out=1)},
)
updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
assert not np.any(updates["layers_0"]["kernel"]) and np.any(updates["layers_1"]["kernel"])
singular_values = np.linalg.svd(np.asarray(updates["head"]["kernel"], np.float32), compute_uv=False)
print("singular values of the head's update:", np.round(singular_values, 2))
assert np.abs(singular_values - 1).max() < 0.1

# %% [markdown]
# ## Change one thing
#
# Send the first layer to AdamW, or the head to Muon. Does the loss notice?

# %%
routing = {"layers/0/kernel": "other"}  # try {}, {"head/kernel": jt.MatrixAxes(0, 1)}, {"layers": "other"}

changed = train(jt.muon(1e-2, routing=routing))
print(f"mean of the last ten losses: {changed[-10:].mean():.3f}, by default {losses['muon'][-10:].mean():.3f}")

# %% [markdown]
# ## Exercises

# %% tags=["checks"]


def check_route(routing):
    """Exercise 1"""
    shapes = {"tokens": (76, 32), "mix": (96, 32), "scale": (32,)}
    tree = {name: jnp.ones(shape) for name, shape in shapes.items()}
    found = jt.routing.resolve(dict(routing), tree)
    labels = {name: route.label for name, route in found.items()}
    assert labels["tokens"] != "matrix", "tokens is looked up by row: an embedding, not a matrix"
    assert labels["mix"] == "matrix", f"mix should be a matrix, it is routed as {labels['mix']}"
    assert found["mix"].axes == jt.MatrixAxes(fan_in=1, fan_out=0), (
        f"mix is stored as (out, in), not {found['mix'].axes}"
    )


def check_frozen(transformation):
    """Exercise 2"""
    tree = {"embed": {"embedding": jnp.ones((7, 4))}, "layers_0": {"kernel": jnp.eye(4), "bias": jnp.ones(4)}}
    updates, _ = transformation.update(tree, transformation.init(tree), tree)
    assert not np.any(updates["embed"]["embedding"]), "the embedding should not move"
    assert np.allclose(updates["layers_0"]["kernel"], -0.1 * np.eye(4), atol=0.02), "the kernel should move by Muon"
    assert np.allclose(updates["layers_0"]["bias"], -0.1, atol=1e-4), "the bias should move by Adam"


# %% [markdown]
# **1. Route by hand.** A checkpoint from elsewhere has the arrays `tokens` (76, 32), a table of embeddings; `mix` (96,
# 32), a linear layer with 32 inputs, stored as (out, in); and `scale` (32,). Say what has to be said.

# %%
my_routing = {"tokens": "embedding", "mix": jt.MatrixAxes(fan_in=0, fan_out=1)}  # half of it

grade(check_route, my_routing)

# %% tags=["solution"]
routing_solution = {"tokens": "embedding", "mix": jt.MatrixAxes(fan_in=1, fan_out=0)}

assert grade(check_route, routing_solution)

# %% [markdown]
# **2. Fine-tune with a frozen embedding.** Complete the transformation: matrices by Muon, the embedding not at all,
# everything else by Adam, all at rate 0.1.

# %%
step = optax.scale_by_learning_rate(0.1)
my_transformation = jt.multi_transform(
    {"matrix": optax.chain(jt.scale_by_muon(), step), "other": optax.chain(jt.scale_by_adam(), step)}
)

grade(check_frozen, my_transformation)

# %% tags=["solution"]
transformation_solution = jt.multi_transform(
    {
        "matrix": optax.chain(jt.scale_by_muon(), step),
        "embedding": optax.set_to_zero(),
        "other": optax.chain(jt.scale_by_adam(), step),
    }
)

assert grade(check_frozen, transformation_solution)

# %% [markdown]
# ## Papers
#
# Jordan et al. 2024, [Muon](https://kellerjordan.github.io/posts/muon/), on embeddings, heads and other parameters that
# are left to AdamW.
