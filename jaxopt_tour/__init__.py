"""Every optimizer from SGD to Muon as composable Optax transformations, and a tour that shows why each works.

The names below are in the order of the tour. `import jaxopt_tour` needs JAX and Optax alone; the tour itself
(`jaxopt_tour.problems`, `jaxopt_tour.tour`) loads when it is first touched and says which extra it needs.
"""

from __future__ import annotations

import importlib
from typing import Any

from jaxopt_tour import coefficients, routing
from jaxopt_tour.mesh.on_mesh import OnMesh
from jaxopt_tour.mesh.report import Plan, plan
from jaxopt_tour.mesh.sharded_state import sharded_state, state_shardings
from jaxopt_tour.optimizers import presets
from jaxopt_tour.optimizers.adadelta import adadelta, scale_by_adadelta
from jaxopt_tour.optimizers.adagrad import adagrad, scale_by_adagrad
from jaxopt_tour.optimizers.adam import adam, adamw, scale_by_adam
from jaxopt_tour.optimizers.clip_qk import clip_qk
from jaxopt_tour.optimizers.dion2 import dion2, scale_by_dion2
from jaxopt_tour.optimizers.dual_norm import scale_by_dual_norm
from jaxopt_tour.optimizers.eadam import eadam, scale_by_eadam
from jaxopt_tour.optimizers.ema_nesterov import ema_nesterov, ema_nesterov_params
from jaxopt_tour.optimizers.equalize import equalize_norms, normalize_frobenius
from jaxopt_tour.optimizers.hyperball import adamh, hyperball, muonh
from jaxopt_tour.optimizers.interpolate import interpolate
from jaxopt_tour.optimizers.laprop import laprop, scale_by_laprop
from jaxopt_tour.optimizers.lion import lion, scale_by_lion
from jaxopt_tour.optimizers.momentum import momentum, nesterov, scale_by_momentum
from jaxopt_tour.optimizers.multi_transform import multi_transform
from jaxopt_tour.optimizers.muon import muon, scale_by_muon
from jaxopt_tour.optimizers.muown import muown
from jaxopt_tour.optimizers.normuon import normuon, scale_by_normuon
from jaxopt_tour.optimizers.orthogonalize import orthogonalize_via_newton_schulz, scale_by_matrix_shape
from jaxopt_tour.optimizers.proximal import proximal_decay
from jaxopt_tour.optimizers.relative_update import floor_relative_update, radial_brake
from jaxopt_tour.optimizers.rmsprop import rmsprop, scale_by_rmsprop
from jaxopt_tour.optimizers.scion import scion
from jaxopt_tour.optimizers.sgd import sgd
from jaxopt_tour.optimizers.shampoo import scale_by_shampoo, shampoo
from jaxopt_tour.optimizers.sign import scale_by_sign, signsgd, signum
from jaxopt_tour.optimizers.skip_spikes import skip_spikes
from jaxopt_tour.optimizers.soap import scale_by_soap, soap
from jaxopt_tour.optimizers.soap_muon import soap_muon
from jaxopt_tour.optimizers.tail_average import tail_average, tail_average_params
from jaxopt_tour.optimizers.weight_decay import add_decayed_weights
from jaxopt_tour.optimizers.weight_normalization import with_weight_normalization
from jaxopt_tour.orthogonalization.orthogonalizer import Orthogonalizer, orthogonalize
from jaxopt_tour.routing import MatrixAxes, Route, Routes, routing_table
from jaxopt_tour.state.bfloat16_momentum import with_bfloat16_momentum
from jaxopt_tour.state.diagnose import diagnose
from jaxopt_tour.state.from_torch import moments_from_torch
from jaxopt_tour.state.int8_momentum import with_int8_momentum
from jaxopt_tour.state.master_weights import with_master_weights
from jaxopt_tour.state.migrate import Migration, migrate_state
from jaxopt_tour.state.monitor import metrics, monitored
from jaxopt_tour.state.stochastic_rounding import with_stochastic_rounding

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 (the order of the tour)
    # the optimizers, in the order of the tour
    "sgd",
    "momentum",
    "nesterov",
    "adagrad",
    "adadelta",
    "rmsprop",
    "signsgd",
    "signum",
    "adam",
    "adamw",
    "laprop",
    "eadam",
    "lion",
    "adamh",
    "muon",
    "normuon",
    "muonh",
    "muown",
    "dion2",
    "scion",
    "shampoo",
    "soap",
    "soap_muon",
    # their parts
    "scale_by_momentum",
    "scale_by_adagrad",
    "scale_by_adadelta",
    "scale_by_rmsprop",
    "scale_by_sign",
    "scale_by_adam",
    "scale_by_laprop",
    "scale_by_eadam",
    "scale_by_lion",
    "add_decayed_weights",
    "proximal_decay",
    "orthogonalize_via_newton_schulz",
    "scale_by_matrix_shape",
    "scale_by_dual_norm",
    "scale_by_muon",
    "equalize_norms",
    "normalize_frobenius",
    "scale_by_normuon",
    "scale_by_dion2",
    "floor_relative_update",
    "radial_brake",
    "hyperball",
    "with_weight_normalization",
    "scale_by_shampoo",
    "scale_by_soap",
    "ema_nesterov",
    "ema_nesterov_params",
    "tail_average",
    "tail_average_params",
    "interpolate",
    "skip_spikes",
    "clip_qk",
    "multi_transform",
    "Orthogonalizer",
    # on a mesh
    "OnMesh",
    "Plan",
    "plan",
    "sharded_state",
    "state_shardings",
    # a saved run
    "Migration",
    "migrate_state",
    "moments_from_torch",
    # numbers to watch
    "monitored",
    "metrics",
    "diagnose",
    # half precision
    "with_master_weights",
    "with_stochastic_rounding",
    "with_int8_momentum",
    "with_bfloat16_momentum",
    # matrices
    "MatrixAxes",
    "Route",
    "Routes",
    "orthogonalize",
    "routing",
    "routing_table",
    "coefficients",
    "presets",
]

_NEEDS = {"problems": "tour", "tour": "tour", "cli": "tour"}


def __getattr__(name: str) -> Any:
    """The tour's packages, loaded when first touched."""
    if name in _NEEDS:
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            extra = _NEEDS[name]
            raise ImportError(
                f"jaxopt_tour.{name} needs {error.name!r}, which comes with: pip install 'jaxopt-tour[{extra}]'"
            ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, and the packages of the tour."""
    return [*__all__, *_NEEDS]
