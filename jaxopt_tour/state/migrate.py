"""Go on with the state of another optimizer, another routing, another version or another library."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from jaxopt_tour._checks import check_choice, check_decay_rate, check_integer, check_transformation
from jaxopt_tour._trees import is_box, named_leaves, path_name, rebox, unbox
from jaxopt_tour._types import Tree
from jaxopt_tour.mesh.sharded_state import sharded_state
from jaxopt_tour.optimizers._init_report import collect_report
from jaxopt_tour.routing import Route
from jaxopt_tour.routing.log import LOGGER
from jaxopt_tour.state.changed_axes import change_of_axes, check_old_routes
from jaxopt_tour.state.fill_state import Filling
from jaxopt_tour.state.int8_momentum import decoded, encoded, map_int8_states
from jaxopt_tour.state.migration_report import MigrationReport
from jaxopt_tour.state.moments import AVERAGE, SUM, Moment, OldState, SavedMoments
from jaxopt_tour.state.read_state import read_state


@dataclasses.dataclass(frozen=True)
class Migration:
    """A state of the new optimizer, and what became of the old one.

    Args:
        state: the state to go on with; its arrays may share memory with the old state's.
        report: what was kept and what was not; `print` it.
    """

    state: Any
    report: MigrationReport


def migrate_state(
    old_state: OldState,
    tx: optax.GradientTransformation,
    params: Tree,
    *,
    beta: float | None = None,
    trace: Literal["sum", "average"] = "sum",
    count: int | None = None,
    old_routes: Mapping[str, Route] | None = None,
) -> Migration:
    r"""Return a state of `tx` with every moment of another state whose meaning is the same.

    ```python
    migration = jt.migrate_state(old_state, tx, params)
    print(migration.report)
    updates, state = tx.update(grads, migration.state, params)
    ```

    A moment goes to the same parameter, by path name, and to the field with the same meaning, whatever wraps it:

    | old | new | value |
    |---|---|---|
    | average of g (Adam, Muon, Lion, `form="ema"`) | the same | unchanged |
    | sum of g (`optax.trace`, `form="sum"`) | average of g | $(1 - \beta) m$ |
    | average of g | sum of g | $m / (1 - \beta)$ |
    | average of g^2 | the same | unchanged |
    | average of g^2 | sum of g^2 (Adagrad) | $t v$ |
    | sum of g^2 | average of g^2 | $r / t$ |
    | average of g^2 | that of EAdam, which has eps in it, and back | unchanged |
    | Shampoo's averages | Shampoo's sums, `b2=None` | times t; back: divided by t |
    | any other (SOAP's bases, LaProp's ratios, a norm, a float32 copy) | the same | unchanged |

    A second moment that the old state lacks, as Muon's does, would start at zero and let the first updates explode,
    since the bias correction ends with the count. It is estimated so that the first update, along m, has a root mean
    square of 0.2: $v = \text{mean}(m^2) / 0.04$. A parameter without any moment gets the mean of the others' v.

    Counts, and with them schedules and bias corrections, go on. A transformation none of whose moments comes from the
    old state counts from 0. Hyperparameters that `optax.inject_hyperparams` keeps are those of `tx`.

    Preconditioners belong to a side of a matrix. Where fan-in and fan-out have changed places, as `old_routes` or their
    shapes tell, each goes to the other side; with other changes of the axes they start anew.

    A new array has the sharding of its parameter; where parameters are on no mesh, that of the old array.

    Args:
        old_state: the state of any optimizer of this library or of Optax; also as dictionaries, which Orbax restores
            without a target; or what `moments_from_torch` returns. Dictionaries lose the classes:
            fields count, mu and nu are then read as Adam's.
        tx: the optimizer to go on with.
        params: the parameters, as for `tx.init`.
        beta: decay rate of the momentum that is a sum, in the old state or in the new one. Required where a sum becomes
            an average or an average a sum.
        trace: what a field named `trace` holds. `"average"` for states of `jt.muon` and `jt.shampoo` that were
            saved before 0.1.
        count: the steps so far. Required where the old state does not count them, as that of `optax.sgd` at a
            constant rate.
        old_routes: the routes of the old run, as `jt.Routes.from_json` reads them. Default None: where the axes of a
            square matrix have changed, nothing shows it, and preconditioners stay on their sides.

    Returns:
        A `Migration`: the state and the report. A line in the log says how many moments are new or dropped.

    Raises:
        ValueError: An argument is not one of those allowed; `beta` or `count` is required and not given; a moment from
            PyTorch has not the shape of its parameter. The message names the parameter.

    Source:
        The size of AdamW's updates: Liu et al. 2025, https://arxiv.org/abs/2502.16982, section 2.2.
    """
    check_transformation("tx", tx)
    if beta is not None:
        check_decay_rate("beta", beta)
    check_choice("trace", trace, ("sum", "average"))
    if count is not None:
        check_integer("count", count, 0)
    check_old_routes(old_routes)
    parameters = named_leaves(params)
    old_state = map_int8_states(decoded, old_state)
    old = old_state if isinstance(old_state, SavedMoments) else read_state(old_state, parameters)
    if trace == "average":
        old = _traces_as_averages(old)
    with collect_report() as routed:
        new_state = map_int8_states(decoded, sharded_state(tx).init(params))
    changes = {
        name: change_of_axes(old_routes[name].axes, route.axes, tuple(parameters[name].shape))
        for name, route in routed.routes.items()
        if old_routes is not None and name in old_routes and name in parameters
    }
    filling = Filling(old, read_state(new_state, parameters), parameters, beta, count, changes)
    arrays = filling.run()

    def replaced(path: tuple[Any, ...], leaf: Any) -> Any:
        names = tuple(path_name((key,)) for key in path)
        return rebox(leaf, _placed(arrays[names], unbox(leaf))) if names in arrays else leaf

    state = map_int8_states(encoded, jax.tree_util.tree_map_with_path(replaced, new_state, is_leaf=is_box))
    report = MigrationReport(tuple(filling.lines))
    (LOGGER.info if report.is_complete else LOGGER.warning)("migrated optimizer state: %s", report.totals)
    return Migration(state, report)


def _traces_as_averages(old: SavedMoments) -> SavedMoments:
    def renamed(moment: Moment) -> Moment:
        return (
            dataclasses.replace(moment, kind=moment.kind.replace(SUM, AVERAGE)) if moment.field == "trace" else moment
        )

    holders = [dataclasses.replace(holder, moments=tuple(map(renamed, holder.moments))) for holder in old.holders]
    return dataclasses.replace(old, holders=tuple(holders))


def _placed(array: Any, like: Any) -> Any:
    """The array as sharded as `like`; as it is where that is on no mesh."""
    sharding = getattr(like, "sharding", None)
    return jax.device_put(array, sharding) if isinstance(sharding, NamedSharding) else jnp.asarray(array)
