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
# # 10. Muon on a real GPT in three minutes
#
# **What does Muon do inside a network that trains?** A character GPT learns Shakespeare from scratch: its learning rate
# is swept, the spectra of its gradients, momentum, updates and weights are recorded, and you take one part of Muon out.
#
# *15 minutes to read, under three minutes to run on two CPU cores. Before it: [chapter 7](07_muon.ipynb) and
# [chapter 8](08_flax.ipynb).*

# %% tags=["setup"]
import inspect
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxopt_tour as jt
from jaxopt_tour.problems.data.datasets import shakespeare
from jaxopt_tour.problems.models import GPT
from jaxopt_tour.problems.workloads import small_gpt, text_workload
from jaxopt_tour.tour import plots
from jaxopt_tour.tour.exercises import grade
from jaxopt_tour.tour.laboratory import runs, singular
from jaxopt_tour.tour.laboratory.observe import observe

# Tests of this notebook train a smaller model for a few steps, and leave out what a few steps cannot show.
QUICK = "JAXOPT_TOUR_QUICK" in os.environ
STEPS, WIDTH, BLOCKS = (10, 16, 1) if QUICK else (200, 64, 2)
KERNEL = ("blocks", 0, "mlp", "up", "kernel")  # the matrix whose spectra are looked at
NAME = "/".join(map(str, KERNEL))

alphabet = shakespeare().alphabet
workload = text_workload(
    "gpt",
    "Shakespeare, character GPT",
    lambda rngs: GPT(len(alphabet), width=WIDTH, heads=4, blocks=BLOCKS, hidden=11 * WIDTH // 4, rngs=rngs),
    target=2.45,
    batch=8,
    length=64,
    steps=STEPS,
    data=small_gpt().data,
)

# %% tags=["picture"]
first, batches = runs.keys_of(jnp.uint32(0))
params, data = workload.init(first), runs.device_data(workload)
first_loss, gradient = jax.jit(jax.value_and_grad(workload.loss))(params, workload.draw(data, batches))


def kernel(tree):
    """The array of the matrix that is looked at, from the model's parameters."""
    for key in KERNEL:
        tree = tree[key]
    return np.asarray(tree[...])


def values(matrix):
    """Singular values, the largest as one."""
    s = np.linalg.svd(matrix, compute_uv=False)
    return s / s[0]


G = kernel(gradient)
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.plot(values(G), label="gradient, and SGD's step", **plots.line("sgd"))
ax.plot(values(np.sign(G)), label="AdamW's first step", **plots.line("adamw"))
ax.plot(values(jt.orthogonalize(jnp.asarray(G), "polar_express")), label="Muon's first step", **plots.line("muon"))
ax.set(xlabel="singular value, by size", ylabel="its value (largest = 1)", yscale="log", title=NAME)
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# The first gradient of one feed-forward matrix of this GPT. Its singular values fall fast, so a step along it moves few
# directions. AdamW's step is the sign of the gradient and reaches more of them. Muon's reaches all alike.
#
# ## The model
#
# Two transformer blocks of width 64, 110,400 parameters, on eight plays of Shakespeare character by character. A step
# sees 8 windows of 64 characters. Muon takes the matrices of the blocks; the embedding, the head and the norms go to
# AdamW, as `routing_table` says.

# %%
print(f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters, first loss {first_loss:.2f}")
print(jt.routing_table(params))
np.testing.assert_allclose(first_loss, np.log(len(alphabet)), rtol=0.2)  # near a uniform guess over the characters

# %% [markdown]
# ## The optimizers
#
# A `Rule` is an optimizer up to its numbers. One program is compiled for all rates and seeds of a rule: this one, with
# a look at the matrix every so many steps.

# %%
print(inspect.getsource(runs.training_step))


def muon(rate, numbers, workload, **options):
    """Muon as the tour's race has it; options are for the ablation below."""
    options = {"beta": 0.9, "weight_decay": 0.1, "orthogonalizer": "polar_express"} | options
    return jt.muon(rate, routing=workload.routing, **options)


def adamw(rate, numbers, workload):
    """AdamW with the decay rates that the tour's race has."""
    return jt.adamw(rate, b1=0.9, b2=0.95, weight_decay=0.1)


def spectra(moment):
    """The singular values of the matrix in four trees."""
    weight = moment.params
    for key in KERNEL:
        weight = weight[key]
    found = {
        "gradient": moment.gradient[NAME],
        "momentum": moment.momentum[NAME],
        "update": moment.update[NAME],
        "weight": weight[...],
    }
    return {kind: jnp.linalg.svd(matrix, compute_uv=False) for kind, matrix in found.items()}


def train(rule, rate, seed=0):
    """One run: what was seen at ten of its steps, the training loss over its length, and the held-out loss."""
    return observe(workload, rule, {"learning_rate": rate}, seed, STEPS, STEPS // 10, spectra)


# %% [markdown]
# ## The rate
#
# Half decades, from AdamW's usual 3e-3 up. Rates rise over 5 % of the steps and fall to zero. The held-out loss is that
# of windows which are never trained on.

# %%
rules = {name: runs.Rule(name, build, {"learning_rate": 3e-3}) for name, build in (("adamw", adamw), ("muon", muon))}
rates = (3e-3, 1e-2) if QUICK else (3e-3, 1e-2, 3e-2, 1e-1)
sweep = {name: {rate: train(rule, rate) for rate in rates} for name, rule in rules.items()}
final = {name: {rate: float(run.outcome.final) for rate, run in found.items()} for name, found in sweep.items()}
best = {name: min(found, key=found.get) for name, found in final.items()}
for name, found in final.items():
    print(f"{name:6}", {rate: round(loss, 3) for rate, loss in found.items()}, " best rate", best[name])

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for name, found in final.items():
    left.plot(found.keys(), found.values(), "o", label=name, **plots.line(name))
    curve = sweep[name][best[name]].outcome.curve
    right.plot((0.5 + np.arange(len(curve))) * STEPS / len(curve), curve, label=name, **plots.line(name))
left.set(xscale="log", xlabel="learning rate", ylabel="held-out loss")
right.set(xlabel="step", ylabel="training loss, at the best rate")
left.legend(frameon=False)
plt.show()

if not QUICK:
    assert final["muon"][best["muon"]] < final["adamw"][best["adamw"]]
    assert all(final[name][best[name]] < 0.7 * float(first_loss) for name in final)

# %% [markdown]
# Muon's loss is lower, and it is lower over a wider range of rates. One seed and half decades do not settle by how
# much. The tour's race does, with finer sweeps, more seeds and intervals: `./tour`, and the page on the race.
#
# ## Spectra, while it trains
#
# The same matrix at ten moments of both runs, early ones light. Each spectrum is divided by its largest value.

# %%
figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained", sharex=True, sharey=True)
seen = {name: sweep[name][best[name]] for name in rules}
for row, (name, run) in zip(axes, seen.items(), strict=True):
    for ax, (kind, s) in zip(row, run.seen.items(), strict=True):
        for moment, spectrum in enumerate(s / s[:, :1]):
            ax.plot(spectrum, color=plots.line(name)["color"], alpha=0.15 + 0.085 * moment, linewidth=1.2)
        ax.set(title=f"{name}: {kind}", yscale="log", ylim=(1e-3, 1.3))
for ax in axes[1]:
    ax.set_xlabel("singular value, by size")
plt.show()

rank = {
    name: {kind: np.mean([singular.effective_rank(each) for each in s]) / s.shape[1] for kind, s in run.seen.items()}
    for name, run in seen.items()
}
for name, found in rank.items():
    print(f"{name:6} effective rank, as a share of full:", {kind: round(float(r), 2) for kind, r in found.items()})
assert rank["muon"]["update"] > 0.95 > rank["adamw"]["update"] > rank["adamw"]["momentum"]
assert rank["muon"]["update"] > 1.3 * rank["muon"]["momentum"]

# %% [markdown]
# Three things to see. Gradients are of low effective rank in both runs, and momentum is no better: it averages what is
# noise in weak directions. AdamW's update repairs a part of that. Muon's is flat at every step, whatever came in.
#
# What it does to the weight is slower: a random start has a spectrum of its own, and 200 steps change it little. The
# laboratory's section 6 follows all matrices of this model over six seeds.
#
# ## Take one part out
#
# Muon is momentum, orthogonalization, a shape factor, and a choice of parameters. Which part earns the result? Each
# variant below lacks one. The most telling is the second: steps of exactly the same length as Muon's, from the same
# momentum, that keep the momentum's spectrum.

# %%


def same_length(rate, numbers, workload):
    """Muon with its polar factor replaced: momentum, scaled so that entries have a root mean square of 0.2."""
    matrices = optax.chain(
        jt.scale_by_momentum(0.9, form="ema", nesterov=True),
        jt.scale_by_dual_norm("rms"),
        optax.scale(0.2),
        jt.add_decayed_weights(0.1),
        optax.scale_by_learning_rate(rate),
    )
    rest = jt.adamw(rate, b1=0.9, b2=0.95, weight_decay=0.1)
    return jt.multi_transform({"matrix": matrices, "other": rest}, routing=workload.routing)


def without(**options):
    """Muon with other options."""
    return lambda rate, numbers, workload: muon(rate, numbers, workload, **options)


ablations = {
    "no Nesterov": without(nesterov=False),
    "same length, not orthogonalized": same_length,
    "two steps of Newton-Schulz": without(orthogonalizer=jt.coefficients.polar_express(2)),
    "no momentum": without(beta=0.0, nesterov=False),
    "no shape factor": without(shape_factor=None),
    "no weight decay": without(weight_decay=0.0),
}

# %% [markdown]
# ## Change one thing
#
# Name another variant, and run the cell. It takes half a minute.

# %%
choice = "same length, not orthogonalized"  # try any other name of the list above

variant = runs.Rule(choice, ablations[choice], {"learning_rate": 3e-3})
around = [rate for rate in rates if 0.2 < rate / best["muon"] < 5]  # its rate is swept as well
losses = {rate: float(train(variant, rate).outcome.final) for rate in around}
print(f"Muon {final['muon'][best['muon']]:.3f}, AdamW {final['adamw'][best['adamw']]:.3f}")
print(f"{choice}:", {rate: round(loss, 3) for rate, loss in losses.items()})
if choice == "same length, not orthogonalized" and not QUICK:
    assert min(losses.values()) > final["muon"][best["muon"]]

# %% [markdown]
# ## Exercises

# %% tags=["checks"]


def check_rank(effective_rank):
    """Exercise 1"""
    for s in (np.ones(7), np.array([1.0, 1e-12]), seen["adamw"].seen["gradient"][-1], np.array([3.0, 2.0, 1.0])):
        ours, right = float(effective_rank(s)), singular.effective_rank(s)
        assert np.isclose(ours, right, rtol=1e-4), f"of {np.round(s[:3], 3)}... it is {right:.3f}, not {ours:.3f}"


def check_bits(bits):
    """Exercise 2"""
    for loss in (float(first_loss), 2.0, 1.5):
        ours, right = float(bits(loss)), loss / np.log(2)
        assert np.isclose(ours, right), f"{loss:.3f} nats are not {ours:.3f} bits"


# %% [markdown]
# **1. Effective rank.** Divide the singular values by their sum, and take them as probabilities $p_i$. The effective
# rank is $\exp(-\sum_i p_i \log p_i)$: $n$ for $n$ equal values, one for a single value. Mind $p_i = 0$.


# %%
def my_effective_rank(s):
    """The effective rank of singular values."""
    return np.sum(s > 0)  # the rank, which is never low


grade(check_rank, my_effective_rank)

# %% tags=["solution"]


def effective_rank_solution(s):
    """The exponential of the entropy; a value of zero adds nothing."""
    p = np.asarray(s, np.float64) / np.sum(s)
    p = p[p > 0]
    return np.exp(-np.sum(p * np.log(p)))


assert grade(check_rank, effective_rank_solution)

# %% [markdown]
# **2. Bits.** The loss is in nats a character, the mean of $-\log p$ of the right one. A compressor that uses this
# model writes that many nats for each. How many bits is that? Compare with the $\log_2 76 = 6.2$ bits of a uniform
# guess.


# %%
def my_bits(nats):
    """Bits a character, from nats a character."""
    return nats


grade(check_bits, my_bits)

# %% tags=["solution"]


def bits_solution(nats):
    """A bit is log 2 nats."""
    return nats / np.log(2)


assert grade(check_bits, bits_solution)
for name in final:
    print(f"{name}: {bits_solution(final[name][best[name]]):.2f} bits a character")

# %% [markdown]
# ## Papers
#
# Jordan et al. 2024, [Muon](https://kellerjordan.github.io/posts/muon/). Liu et al. 2025, [Muon is Scalable for LLM
# Training](https://arxiv.org/abs/2502.16982), section 3.4 on spectra of weights. Roy & Vetterli 2007, [The effective
# rank](https://ieeexplore.ieee.org/document/7098875). Su et al. 2021, [RoFormer](https://arxiv.org/abs/2104.09864), and
# Shazeer 2020, [GLU Variants](https://arxiv.org/abs/2002.05202), for the model.
