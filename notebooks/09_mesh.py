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
# # 9. Muon on a mesh
#
# **Newton-Schulz needs whole matrices, and a large model's are sharded over many devices. How often do they have to be
# sent?** Twice for all of them together: `mesh=` brings each whole matrix to one device, and the result back.
#
# *15 minutes to read, half a minute to run. Before it: [chapter 7](07_muon.ipynb), and what a sharded array is in
# [JAX](https://docs.jax.dev/en/latest/sharded-computation.html).*

# %% tags=["setup"]
# JAX fixes the number of devices when it starts: eight virtual ones on the CPU, for machines that have only one.
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import inspect
import re
from collections import Counter

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxopt_tour as jt
from jaxopt_tour.tour import plots
from jaxopt_tour.tour.exercises import grade

devices = jax.devices() if jax.device_count() > 1 else jax.devices("cpu")
print(len(devices), "devices:", devices[0].platform)
assert len(devices) > 1, "JAX was running already: restart the session and run from the top"

# %% tags=["picture"]
panels = {"sharded: a block of every matrix": 0, "one exchange: whole matrices": 1, "one more: blocks again": 0}
palette = plt.get_cmap("tab10").colors
figure, axes = plt.subplots(1, 3, figsize=(12, 3), layout="constrained", sharey=True)
for ax, (title, whole) in zip(axes, panels.items(), strict=True):
    for device in range(4):
        for block in range(4):
            matrix = device if whole else block
            ax.barh(3 - device, 0.9, left=block, height=0.62, color=palette[matrix], alpha=0.9)
            ax.text(block + 0.45, 3 - device, f"{'ABCD'[matrix]}{block if whole else device}", ha="center", va="center")
    ax.set(title=title, xticks=[], yticks=range(4), yticklabels=[f"device {3 - place}" for place in range(4)])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
plt.show()

# %% [markdown]
# Four matrices, A to D, on four devices. A device holds one block of each. After one all-to-all it holds one whole
# matrix, orthogonalizes that, and sends the blocks back.
#
# ## Sharded parameters
#
# FSDP: every matrix is sharded along one axis, so each of $N$ devices holds one block of it. The same goes for the
# optimizer's state.

# %%
mesh = jax.make_mesh((len(devices),), ("fsdp",), axis_types=(AxisType.Auto,), devices=devices)
rows, everywhere = NamedSharding(mesh, PartitionSpec("fsdp", None)), NamedSharding(mesh, PartitionSpec())

width, layers = 16 * len(devices), 4
on_one = {
    f"layer_{number}": {"kernel": jax.random.normal(jax.random.key(number), (width, width)) / width**0.5}
    for number in range(layers)
}
on_one = jax.device_put(on_one, devices[0])
params = jax.device_put(on_one, rows)
kernel = params["layer_0"]["kernel"]
print("a kernel", kernel.shape, "as", kernel.sharding.spec, "in blocks of", kernel.addressable_shards[0].data.shape)

# %% [markdown]
# ## One line
#
# `mesh` names the axes whose devices share the work. Each matrix is sent to one device, orthogonalized there, and sent
# back. `sharded_state` creates the optimizer's state sharded like the parameters.

# %%
full_precision = jt.Orthogonalizer(dtype="float32")
tx = jt.sharded_state(jt.muon(0.02, orthogonalizer=full_precision, mesh="fsdp"))
left_to_xla = jt.sharded_state(jt.muon(0.02, orthogonalizer=full_precision))
state = tx.init(params)

print(inspect.getsource(jt.sharded_state))


def bytes_on_first_device(tree):
    """Of all arrays of a tree."""
    shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == devices[0])


whole_state = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
share = bytes_on_first_device(state) / whole_state
print(f"the first device holds {share:.3f} of the state, 1/{1 / share:.1f}")
assert share < 1.01 / len(devices)  # the momentum is sharded, the counts are replicated

# %% [markdown]
# ## The training step does not change
#
# Here a deep linear model learns a linear map. Its batch is sharded over the devices as well.

# %%
x = jax.random.normal(jax.random.key(100), (4 * len(devices), width))
target = x @ jnp.roll(jnp.eye(width), 1, axis=0)


def loss_of(params, x, target):
    """Half the mean squared error."""
    for number in range(layers):
        x = x @ params[f"layer_{number}"]["kernel"]
    return 0.5 * jnp.mean((x - target) ** 2)


def step_with(tx):
    """A compiled training step."""

    @jax.jit
    def step(params, state, x, target):
        loss, grads = jax.value_and_grad(loss_of)(params, x, target)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


def train(tx, params, sharding, steps=20):
    """Losses and the last parameters."""
    data = jax.device_put((x, target), sharding)
    step, state, losses = step_with(tx), tx.init(params), []
    for _ in range(steps):
        params, state, loss = step(params, state, *data)
        losses.append(float(loss))
    return losses, params


sharded_losses, sharded = train(tx, params, rows)
single_losses, single = train(jt.muon(0.02, orthogonalizer=full_precision), on_one, devices[0])
np.testing.assert_allclose(sharded_losses, single_losses, rtol=0.01)
print(f"loss {sharded_losses[0]:.3f} to {sharded_losses[-1]:.3f} on all, to {single_losses[-1]:.3f} on one device")
assert sharded_losses[-1] < 0.7 * sharded_losses[0]
assert sharded["layer_0"]["kernel"].sharding.is_equivalent_to(rows, 2)

# %% [markdown]
# ## What is sent
#
# The collectives in the compiled update, with `mesh=` and without. With it there are two all-to-alls for all matrices
# together, and none inside the iteration. Without it XLA's partitioner shards the products, each of which communicates.

# %%
KINDS = r"= \S.*? (all-to-all|all-gather|all-reduce|collective-permute|reduce-scatter)(?:-start)?\("


def collectives(tx):
    """How often each kind occurs in the compiled update."""
    state = tx.init(params)
    update = jax.jit(lambda grads, state, params: tx.update(grads, state, params))
    return Counter(re.findall(KINDS, update.lower(params, state, params).compile().as_text()))


counts = {"mesh": collectives(tx), "left to XLA": collectives(left_to_xla)}
print(counts)
assert counts["mesh"].total() < counts["left to XLA"].total()
if devices[0].platform == "cpu":
    assert counts["mesh"] == {"all-to-all": 2}

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
kinds = sorted(set().union(*counts.values()))
for offset, (name, count) in zip((-0.2, 0.2), counts.items(), strict=True):
    color = plots.line("muon")["color"] if name == "mesh" else "0.6"
    many = [count[kind] for kind in kinds]
    bars = left.barh(np.arange(len(kinds)) + offset, many, height=0.38, color=color, label=name)
    left.bar_label(bars, padding=3)
left.set(yticks=range(len(kinds)), yticklabels=kinds, xlabel="collectives in one update")
left.legend(frameon=False)
left.margins(x=0.12)
right.plot(single_losses, label="one device", color="0.6", linewidth=4)
right.plot(sharded_losses, label=f"{len(devices)} devices", **plots.line("muon"))
right.set(xlabel="step", ylabel="loss", ylim=(0, None))
right.legend(frameon=False)
plt.show()

# %% [markdown]
# A device holds $1/N$ of every matrix. It keeps $1/N$ of that and sends the rest, there and back:
#
# $$\frac{2\,(N - 1)}{N^2} \text{ of the bytes of all matrices.}$$
#
# Virtual devices share one processor, so this says nothing about speed. Other layouts, several hosts and half the bytes
# on the wire are in `docs/mesh.md`.
#
# ## Change one thing
#
# Shard the matrices along the other axis, or not at all. The numbers stay the same; the collectives change.

# %%
layout = PartitionSpec(None, "fsdp")  # try PartitionSpec("fsdp", None), PartitionSpec()

params = jax.device_put(on_one, NamedSharding(mesh, layout))
print(collectives(tx))
update, _ = jax.jit(tx.update)(params, tx.init(params), params)
plain = jt.muon(0.02, orthogonalizer=full_precision)
expected, _ = jax.jit(plain.update)(on_one, plain.init(on_one), on_one)
jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-4), update, expected)

# %% [markdown]
# ## Exercises

# %% tags=["checks"]


def check_sent(share_sent):
    """Exercise 1"""
    for many in (2, 4, 8):
        sent = 0  # blocks that change device; every matrix has one on each of the devices
        for owner in range(many):
            sent += 2 * sum(holder != owner for holder in range(many))
        expected = sent / many / many**2  # by a device, of all blocks of as many matrices as devices
        ours = float(share_sent(many))
        assert np.isclose(ours, expected), f"each of {many} devices sends {expected:.4f} of all bytes, not {ours:.4f}"


def check_two_axes(mesh_argument):
    """Exercise 2"""
    grid = jax.make_mesh((len(devices) // 2, 2), ("data", "model"), axis_types=2 * (AxisType.Auto,), devices=devices)
    split = jax.device_put(on_one, NamedSharding(grid, PartitionSpec("data", "model")))
    tx = jt.muon(0.02, orthogonalizer=full_precision, mesh=mesh_argument)
    update = jax.jit(lambda grads, state, params: tx.update(grads, state, params))
    program = update.lower(split, tx.init(split), split).compile()
    found = Counter(re.findall(KINDS, program.as_text()))
    assert set(found) <= {"all-to-all"}, f"the whole update should exchange by all-to-alls alone, it has {dict(found)}"
    result, _ = program(split, tx.init(split), split)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-4), result, expected)


# %% [markdown]
# **1. What a device sends.** $N$ devices, $N$ matrices, each matrix in $N$ blocks. Which share of all bytes does one
# device send in one update, there and back? Count blocks before you look at the formula above.


# %%
def share_sent(many):
    """Of the bytes of all matrices, for so many devices."""
    return 2 / many  # if it kept nothing


grade(check_sent, share_sent)

# %% tags=["solution"]


def share_sent_solution(many):
    """It holds 1/N, keeps 1/N of that, and does so twice."""
    return 2 * (many - 1) / many**2


assert grade(check_sent, share_sent_solution)

# %% [markdown]
# **2. Two axes.** The mesh is now `("data", "model")`, and kernels are sharded over both. What is `mesh=`, so that all
# devices share the work?

# %%
mesh_argument = None  # left to XLA

grade(check_two_axes, mesh_argument)

# %% tags=["solution"]
both = ("data", "model")

assert grade(check_two_axes, both)

# %% [markdown]
# ## Papers
#
# Liu et al. 2025, [Muon is Scalable for LLM Training](https://arxiv.org/abs/2502.16982), on sharing its work over
# devices. Ahn et al. 2025, [Dion](https://arxiv.org/abs/2504.05295), on sharded orthonormal updates.
