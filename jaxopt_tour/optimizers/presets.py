"""Optimizers with the settings of published training code: rates, betas and decay by role. `print(preset)` shows them.

The learning rate of a preset is that of the matrices. The rates of all other roles are multiples of it, so that one
schedule drives them all, as in the sources.
"""

from __future__ import annotations

import optax

from jaxopt_tour._checks import check_decay_rate, check_nonnegative, check_number, check_rate
from jaxopt_tour._types import ScalarOrSchedule
from jaxopt_tour.coefficients import PolynomialCoefficients
from jaxopt_tour.coefficients.odd_polynomials import scaled
from jaxopt_tour.mesh.on_mesh import MeshLike
from jaxopt_tour.optimizers._numerics import scale_by_learning_rate
from jaxopt_tour.optimizers._preset import Axes, Group, Preset, adamw_group, make_preset, muon_group, times
from jaxopt_tour.optimizers.adam import scale_by_adam
from jaxopt_tour.optimizers.equalize import equalize_norms, normalize_frobenius
from jaxopt_tour.optimizers.hyperball import hyperball
from jaxopt_tour.optimizers.momentum import scale_by_momentum
from jaxopt_tour.optimizers.muon import scale_by_muon
from jaxopt_tour.optimizers.normuon import scale_by_normuon
from jaxopt_tour.optimizers.orthogonalize import orthogonalize_via_newton_schulz, scale_by_matrix_shape
from jaxopt_tour.optimizers.weight_decay import add_decayed_weights
from jaxopt_tour.orthogonalization.orthogonalizer import Orthogonalizer
from jaxopt_tour.routing import Routing

__all__ = ["Preset", "marin", "modded_nanogpt", "moonlight", "nanochat", "nvidia"]


def nanochat(
    learning_rate: ScalarOrSchedule = 0.02,
    *,
    weight_decay: ScalarOrSchedule = 0.28,
    beta: float = 0.95,
    width: int = 768,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> Preset:
    r"""Optimize with nanochat's settings: NorMuon between equalized norms, and AdamW by role.

    | role | rule | rate | betas | decay |
    |---|---|---|---|---|
    | `"matrix"` | Muon with 5 Polar Express steps, and more | $\eta$ | 0.95; 0.9 of NorMuon | 0.28, cautious |
    | `"embedding"` | AdamW | $15 \eta / \sqrt{\text{width} / 768}$ | 0.8, 0.995 | 0.001 |
    | `"head"`, `"tied"` | AdamW | $0.4 \eta / \sqrt{\text{width} / 768}$ | 0.8, 0.96 | 0.01 |
    | `"other"` | AdamW | $0.25 \eta$ | 0.8, 0.95 | 0.05 |

    AdamW's eps is 1e-10. Matrices get Nesterov momentum, outputs of equal norm (MuonEq), the orthogonalization, the
    Frobenius norm of an orthogonal matrix (Muon+), and NorMuon. Their decay is multiplied by the shape factor
    $\max(1, \sqrt{\text{fan\_out} / \text{fan\_in}})$, as their update is.

    What is not expressed here is the source's training script:

    * the rate: warmup over 40 steps, and a linear end to 5 % over the last 65 % (give a schedule);
    * $\beta$: from 0.85 to 0.97 in 400 steps, and down to 0.90 during the end;
    * the decay of matrices: a cosine to zero (give a schedule);
    * rates times $\sqrt{B / B_0}$ for batches of $B$ tokens, $B_0 = 2^{19}$;
    * the decay of matrices times $\sqrt{B / B_0}\, D_0 / D$ for $D$ tokens, $D_0$ those of the model of depth 12.

    Value embeddings have half the embedding's rate and a decay of 0.01 there. nanochat has no biases and no gains of
    norms: `"other"` has the settings of its residual gains. Other gains have rates of 0.5 and 0.2 there.

    Args:
        learning_rate: Step size $\eta$ of the matrices, a number or a schedule of the step count. Default 0.02.
        weight_decay: Strength of the decay of matrices, a number or a schedule of the step count. Default 0.28.
        beta: Exponential decay rate of the matrices' momentum. Default 0.95.
        width: Width of the model, by which the rates of embedding and head are scaled. Default 768.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh`. Default None.

    Returns:
        The optimizer, which prints its settings.

    Raises:
        ValueError: An argument is out of range.

    Source:
        https://github.com/karpathy/nanochat at 92d63d4 (2026-07-03): nanochat/optim.py, `setup_optimizer` of
        nanochat/gpt.py, and the default arguments of scripts/base_train.py. The source bounds row norms from below by
        1e-6 before the orthogonalization; here by 1e-7 of their mean. It also decays a weight whose update is exactly
        zero.
    """
    check_rate("learning_rate", learning_rate)
    check_rate("weight_decay", weight_decay)
    check_decay_rate("beta", beta)
    check_number("width", width, "a number > 0", lambda number: number > 0)
    by_width = (width / 768) ** -0.5
    # The source divides by 1.01 |X| + 1e-6: the first polynomial takes the factor.
    orthogonalizer = Orthogonalizer(
        PolynomialCoefficients(
            "nanochat",
            (
                scaled((8.156554524902461, -22.48329292557795, 15.878769915207462), stretch=1.01),
                (4.042929935166739, -2.808917465908714, 0.5000178451051316),
                (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
                (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
                (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
            ),
            "frobenius",
            "nanochat/optim.py",
        ),
        eps=1e-6 / 1.01,
    )
    settings = {"beta": beta, "b2": 0.9, "weight_decay": weight_decay, "cautious": True, "shape_factor": "original"}

    def matrices(axes: Axes) -> optax.GradientTransformation:
        return optax.chain(
            scale_by_momentum(settings["beta"], form="ema", nesterov=True),
            equalize_norms("outputs", axes=axes, mesh=mesh),
            orthogonalize_via_newton_schulz(orthogonalizer, axes=axes, mesh=mesh),
            normalize_frobenius(axes=axes, mesh=mesh),
            scale_by_normuon(settings["b2"], along="longer", axes=axes, mesh=mesh),
            add_decayed_weights(settings["weight_decay"], cautious=settings["cautious"]),
            scale_by_matrix_shape(settings["shape_factor"], axes=axes, mesh=mesh),
            scale_by_learning_rate(learning_rate),
        )

    rule = "MuonEq, Nesterov, polar_express x 5, Muon+, NorMuon"
    groups = (
        Group(("matrix",), rule, 1.0, settings, matrices),
        adamw_group(("embedding",), learning_rate, 15 * by_width, b1=0.8, b2=0.995, eps=1e-10, weight_decay=0.001),
        adamw_group(("head", "tied"), learning_rate, 0.4 * by_width, b1=0.8, b2=0.96, eps=1e-10, weight_decay=0.01),
        adamw_group(("other",), learning_rate, 0.25, b1=0.8, b2=0.95, eps=1e-10, weight_decay=0.05),
    )
    return make_preset("nanochat, https://github.com/karpathy/nanochat at 92d63d4", learning_rate, groups, routing)


def modded_nanogpt(
    learning_rate: ScalarOrSchedule = 0.025,
    *,
    weight_decay: ScalarOrSchedule = 0.05,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> Preset:
    r"""Optimize with the tuned baseline of modded-nanogpt's benchmark of optimizers: Muon, and AdamW by role.

    | role | rule | rate | betas | decay |
    |---|---|---|---|---|
    | `"matrix"` | Muon with Nesterov, 12 steps of $2 s - 1.5 s^3 + 0.5 s^5$ | $\eta$ | 0.95 | 0.05 |
    | `"embedding"` | AdamW | $28 \eta$ | 0.8, 0.95 | 0.001 |
    | `"head"`, `"tied"` | AdamW | $0.16 \eta$ | 0.8, 0.95 | 0.001 |
    | `"other"` | AdamW | $0.6 \eta$ | 0.8, 0.95 | 0.001 |

    The shape factor is $\max(1, \sqrt{\text{fan\_out} / \text{fan\_in}})$, and AdamW's eps is 1e-10. At the default
    rate these are 0.025, 0.7, 0.004 and 0.015, for a model of 124 million parameters and batches of 524,288 tokens.

    What is not expressed here: a constant rate for 30 % of the steps and then a linear one to zero (give a schedule),
    products in bfloat16, and an output projection that starts at zero. The model's embedding is not its head.

    Args:
        learning_rate: Step size $\eta$ of the matrices, a number or a schedule of the step count. Default 0.025.
        weight_decay: Strength of the decay of matrices, a number or a schedule of the step count. Default 0.05.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh`. Default None.

    Returns:
        The optimizer, which prints its settings.

    Raises:
        ValueError: An argument is out of range.

    Source:
        https://github.com/KellerJordan/modded-nanogpt at f411b3d (2026-08-01), records/track_3_optimization, result 36:
        the script at the head of results/20260610_tuned_baseline_3250.
    """
    check_rate("learning_rate", learning_rate)
    cubic_at_one = PolynomialCoefficients("modded_nanogpt", ((2.0, -1.5, 0.5),) * 12, "frobenius", "track 3")
    matrices = muon_group(
        learning_rate,
        Orthogonalizer(cubic_at_one, eps=1e-7),
        mesh,
        beta=0.95,
        nesterov=True,
        weight_decay=weight_decay,
        shape_factor="original",
    )
    rest = {"b1": 0.8, "b2": 0.95, "eps": 1e-10, "weight_decay": 0.001}
    groups = (
        matrices,
        adamw_group(("embedding",), learning_rate, 0.7 / 0.025, **rest),
        adamw_group(("head", "tied"), learning_rate, 0.004 / 0.025, **rest),
        adamw_group(("other",), learning_rate, 0.015 / 0.025, **rest),
    )
    title = "modded-nanogpt, track 3, result 36, https://github.com/KellerJordan/modded-nanogpt at f411b3d"
    return make_preset(title, learning_rate, groups, routing)


def moonlight(
    learning_rate: ScalarOrSchedule = 1e-3,
    *,
    weight_decay: ScalarOrSchedule = 0.1,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> Preset:
    r"""Optimize with the settings of Moonlight's code: Muon and AdamW at one rate and one decay.

    | role | rule | rate | betas | decay |
    |---|---|---|---|---|
    | `"matrix"` | Muon with Nesterov, 5 steps of Keller Jordan's | $\eta$ | 0.95 | 0.1 |
    | `"other"`: all else | AdamW, eps 1e-8 | $\eta$ | 0.9, 0.95 | 0.1 |

    The shape factor is $0.2 \sqrt{\max(\text{fan\_in}, \text{fan\_out})}$, which gives both groups entries of one size.
    Everything decays, gains and embeddings too.

    The source adds AdamW's eps before the correction of the bias: at the first step it is 4.5 times as large there. Its
    products are in bfloat16.

    Args:
        learning_rate: Step size $\eta$ of every parameter, a number or a schedule of the step count. Default 1e-3.
        weight_decay: Strength of the decay, a number or a schedule of the step count. Default 0.1.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh`. Default None.

    Returns:
        The optimizer, which prints its settings.

    Raises:
        ValueError: An argument is out of range.

    Source:
        https://github.com/MoonshotAI/Moonlight at c2ad5b2 (2025-08-02), examples/toy_train.py; Liu et al. 2025,
        https://arxiv.org/abs/2502.16982.
    """
    check_rate("learning_rate", learning_rate)
    # The source sums gradients, of which the average is 0.05 times: the eps that is added to its norm is as well.
    matrices = muon_group(
        learning_rate,
        Orthogonalizer("keller_jordan", eps=1e-7 * (1 - 0.95)),
        mesh,
        beta=0.95,
        nesterov=True,
        weight_decay=weight_decay,
        shape_factor="match_rms_adamw",
    )
    rest = adamw_group(("other",), learning_rate, 1.0, b1=0.9, b2=0.95, eps=1e-8, weight_decay=weight_decay)
    title = "Moonlight, https://github.com/MoonshotAI/Moonlight at c2ad5b2"
    return make_preset(title, learning_rate, (matrices, rest), routing)


def nvidia(
    learning_rate: ScalarOrSchedule = 3e-4,
    *,
    weight_decay: ScalarOrSchedule = 0.1,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> Preset:
    r"""Optimize with NVIDIA's recipe of *SOAP, Muon, and Beyond*: Muon close to the polar factor, without Nesterov.

    | role | rule | rate | betas | decay |
    |---|---|---|---|---|
    | `"matrix"` | Muon without Nesterov, 16 Polar Express steps | $\eta$ | 0.9 | 0.1 |
    | `"other"`: all else | AdamW, eps 1e-8 | $\eta$ | 0.9, 0.95 | 0.1 |

    The shape factor is $0.2 \sqrt{\max(\text{fan\_in}, \text{fan\_out})}$. The recipe says about 0.2, from
    $\sqrt{(1 - \beta_1) / (1 + \beta_1)}$, which is 0.23 at $\beta_1 = 0.9$.

    The recipe is that of the matrices. The rest of the table is this library's default, since the texts that were read
    do not give it; the rate's default is the constructor's. The constructor of Emerging-Optimizers' `Muon` at the
    revision below has other defaults: momentum 0.95, decay 0.01, 5 quintic steps, no factor 0.2.

    Args:
        learning_rate: Step size $\eta$ of every parameter, a number or a schedule of the step count. Default 3e-4.
        weight_decay: Strength of the decay, a number or a schedule of the step count. Default 0.1.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh`. Default None.

    Returns:
        The optimizer, which prints its settings.

    Raises:
        ValueError: An argument is out of range.

    Source:
        https://arxiv.org/abs/2607.20548, as tabulated in
        https://github.com/NVIDIA-NeMo/Emerging-Optimizers/issues/259; rule and coefficients from that repository at
        fd77292 (2026-08-20), where the eighth step is repeated.
    """
    check_rate("learning_rate", learning_rate)
    # The table of emerging_optimizers/orthogonalized_optimizers/muon_utils.py, safety factor included.
    first = (
        (8.2051, -22.9019, 16.4607),
        (4.0664, -2.8612, 0.5184),
        (3.9096, -2.8234, 0.5250),
        (3.2856, -2.4153, 0.4853),
        (2.2779, -1.6198, 0.3985),
        (1.8726, -1.2307, 0.3585),
        (1.8564, -1.2132, 0.3568),
    )
    polynomials = (*first, *((1.8750, -1.2500, 0.3750),) * 9)
    matrices = muon_group(
        learning_rate,
        Orthogonalizer(PolynomialCoefficients("polar_express", polynomials, "frobenius", "Emerging-Optimizers")),
        mesh,
        beta=0.9,
        nesterov=False,
        weight_decay=weight_decay,
        shape_factor="match_rms_adamw",
    )
    rest = adamw_group(("other",), learning_rate, 1.0, b1=0.9, b2=0.95, eps=1e-8, weight_decay=weight_decay)
    title = "NVIDIA, https://github.com/NVIDIA-NeMo/Emerging-Optimizers/issues/259, repository at fd77292"
    return make_preset(title, learning_rate, (matrices, rest), routing)


def marin(
    learning_rate: ScalarOrSchedule = 0.02,
    *,
    max_norm: float = 1.0,
    routing: Routing = None,
    mesh: MeshLike | None = None,
) -> Preset:
    r"""Optimize with the settings of Marin's MuonH: matrices and the head at constant norms, Adam for the rest.

    | role | rule | rate | betas | decay |
    |---|---|---|---|---|
    | `"matrix"` | Muon with Nesterov and 5 steps of Keller Jordan's, `hyperball` | $\eta$, of the norm | 0.95 | 0 |
    | `"head"`, `"tied"` | Adam, then `hyperball` | $\eta$, of the norm | 0.9, 0.95 | 0 |
    | `"other"`: all else | Adam | $0.03 \eta$ | 0.9, 0.95 | 0 |

    Adam's eps is 1e-8. The gradients of each of the three groups are clipped to the norm `max_norm`, each for itself.
    At the default rate Adam's is 6e-4. No matrix and no head may start at zero.

    What is not expressed here: a linear warmup over 1 % of the steps and a cosine to a tenth (give a schedule). The
    source has no default of its own for the rate of MuonH: the class inherits 6e-4 and says that it should be
    $\sqrt{\eta \lambda}$ of a Muon with decay; 0.02 is the default of its `scale_with_muonh`. It keeps the norm before
    each step, and here that at `init` is kept. A table that is also the head counts as its head here.

    Later revisions of Levanter have the coefficients as an option. Its default in muon.py at 0ac1c9b is another table,
    `"you"` here.

    Args:
        learning_rate: Step size $\eta$ relative to the norm of a matrix, a number or a schedule of the step count.
            Default 0.02.
        max_norm: Norm that the gradients of each group are clipped to. Default 1.
        routing: What each parameter is, see `jt.routing.resolve`. Default None: by name and shape.
        mesh: Mesh axes whose devices share the orthogonalization, by name or as a `jt.OnMesh`. Default None.

    Returns:
        The optimizer, which prints its settings.

    Raises:
        ValueError: An argument is out of range; at `init`, a matrix or the head is zero.

    Source:
        https://github.com/marin-community/marin, lib/levanter/src/levanter/optim: muonh.py at 05422e2, adamh.py at
        0084342, config.py at 0f45aa1.
    """
    check_rate("learning_rate", learning_rate)
    check_nonnegative("max_norm", max_norm)
    muon = {"beta": 0.95, "nesterov": True}
    adam = {"b1": 0.9, "b2": 0.95, "eps": 1e-8}
    of_adam = 6e-4 / 0.02  # its rate, in multiples of that of the matrices
    # The source sums gradients, of which the average is 0.05 times: the eps that is added to its norm is as well.
    orthogonalizer = Orthogonalizer("keller_jordan", eps=1e-8 * (1 - muon["beta"]))

    def matrices(axes: Axes) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(max_norm),
            scale_by_muon(muon["beta"], nesterov=True, orthogonalizer=orthogonalizer, axes=axes, mesh=mesh),
            hyperball(learning_rate, axes=axes, mesh=mesh),
        )

    def head(axes: Axes) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(max_norm),
            scale_by_adam(adam["b1"], adam["b2"], adam["eps"]),
            hyperball(learning_rate, axes=axes, mesh=mesh),
        )

    def rest(axes: Axes) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(max_norm),
            scale_by_adam(adam["b1"], adam["b2"], adam["eps"]),
            scale_by_learning_rate(times(learning_rate, of_adam)),
        )

    clipped = {"max_norm": max_norm}
    groups = (
        Group(("matrix",), "Muon, hyperball", 1.0, {**muon, **clipped}, matrices),
        Group(("head", "tied"), "Adam, hyperball", 1.0, {**adam, **clipped}, head),
        Group(("other",), "Adam", of_adam, {**adam, **clipped}, rest),
    )
    title = "Marin's MuonH, https://github.com/marin-community/marin, muonh.py at 05422e2"
    return make_preset(title, learning_rate, groups, routing)
