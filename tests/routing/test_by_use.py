"""Routing by use: every model of the zoo, nothing is run, and errors that say what is wrong."""

from __future__ import annotations

import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxopt_tour.routing.axes import MatrixAxes
from jaxopt_tour.routing.by_use import interpreter
from jaxopt_tour.routing.by_use.trace import from_function
from tests.routing import zoo


@pytest.mark.parametrize("name", zoo.CASES)
def test_every_parameter_of_the_zoo(name):
    case = zoo.CASES[name]
    arguments, kwargs = case.build()
    routes = from_function(*arguments, **kwargs)
    actual = {path: (route.role, route.axes) for path, route in routes.items()}
    reasons = {path: route.reason for path, route in routes.items() if actual[path] != case.expected.get(path)}
    assert actual == case.expected, reasons
    assert all(route.label == route.role for route in routes.values())


def roles(routes):
    return {path: route.role for path, route in routes.items()}


def test_reasons_say_what_was_seen():
    arguments, _ = zoo.CASES["plain_scan"].build()
    routes = from_function(*arguments)
    assert routes["layers/w"].reason == "contracted over axis 1 (8) in dot_general, 4 scanned layers"
    assert routes["head"].reason.endswith("the last contraction before the outputs")
    assert "looked up by the inputs (gather)" in routes["embedding"].reason
    arguments, _ = zoo.CASES["plain_unknown"].build()
    routes = from_function(*arguments)
    assert routes["unused"].reason == "not used by the function"
    assert "lu" in routes["solved"].reason
    assert "qr" in routes["rotation"].reason or "householder" in routes["rotation"].reason
    assert "outer product" in routes["outer"].reason
    assert "sums" in routes["squared"].reason
    arguments, _ = zoo.CASES["plain_reshaped"].build()
    routes = from_function(*arguments)
    assert "axis 0 (96) holds both fan-in and fan-out" in routes["flat"].reason
    assert "reshape" in routes["straddled"].reason
    arguments, _ = zoo.CASES["plain_two_heads"].build()
    assert "one of 2 contractions before the outputs" in from_function(*arguments)["policy"].reason
    arguments, _ = zoo.CASES["plain_odd_uses"].build()
    assert from_function(*arguments)["complex"].reason.startswith("complex entries; contracted over axis 0")


def test_a_matrix_that_also_enters_an_operation_without_a_rule_says_so():
    def fn(params, x):
        y = jnp.tanh(x @ params["w"]) + jnp.linalg.solve(params["w"], x.T).T
        return y @ params["head"]

    route = from_function(fn, {"w": zoo.floats(8, 8), "head": zoo.floats(8, 3)}, zoo.floats(5, 8))["w"]
    assert route.role == "matrix" and "; also used by custom_linear_solve" in route.reason


@pytest.mark.parametrize("name", ["nnx_transformer", "linen_transformer", "plain_fused", "nnx_cnn"])
def test_a_loss_routes_like_the_outputs(name):
    case = zoo.CASES[name]
    (fn, *rest), kwargs = case.build()
    params = case.params()
    call = (lambda p, *x: fn.apply({"params": p}, *x)) if name.startswith("linen") else fn
    if isinstance(fn, nnx.Module):
        graph, params, others = nnx.split(fn, nnx.Param, ...)

        def call(p, *x):
            return nnx.merge(graph, p, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), others))(*x)

        rest = [params, *rest]
    elif name.startswith("linen"):
        rest = [params, *rest[1:]]

    def loss(p, labels, *x):
        logits = call(p, *x)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)
        penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p))
        return -picked.mean() + 1e-4 * penalty

    labels = zoo.tokens(*jax.eval_shape(call, *rest).shape[:-1])
    routes = from_function(loss, rest[0], labels, *rest[1:], **kwargs)
    assert {path: (route.role, route.axes) for path, route in routes.items()} == case.expected


def test_nothing_is_run():
    def never():
        raise AssertionError("the function was run")

    def fn(params, x):
        jax.debug.callback(never)
        x = jax.pure_callback(never, jax.ShapeDtypeStruct(x.shape, x.dtype), vmap_method="sequential") + x
        return jnp.tanh(x @ params["w"]) @ params["head"]

    huge = {"w": zoo.floats(10**5, 10**6), "head": zoo.floats(10**6, 10**5)}
    start = time.perf_counter()
    assert roles(from_function(fn, huge, zoo.floats(2, 10**5))) == {"w": "matrix", "head": "head"}
    # Tracing takes milliseconds; running would need 800 GB.
    assert time.perf_counter() - start < 10


def test_arrays_shapes_and_keyword_inputs_are_alike():
    def fn(params, x, *, scale, train):
        assert train is True
        return (scale * jnp.tanh(x @ params["w"])) @ params["head"]

    shapes = {"w": zoo.floats(4, 4), "head": zoo.floats(4, 2)}
    arrays = jax.tree.map(lambda s: jnp.ones(s.shape), shapes)
    of_shapes = from_function(fn, shapes, zoo.floats(3, 4), scale=zoo.floats(), train=True)
    assert of_shapes == from_function(fn, arrays, jnp.ones((3, 4)), scale=jnp.ones(()), train=True)


def test_a_single_layer_is_a_head():
    routes = from_function(lambda p, x: x @ p["w"], {"w": zoo.floats(4, 2)}, zoo.floats(3, 4))
    assert roles(routes) == {"w": "head"}


def test_of_a_residual_network_without_a_head_only_the_last_layers_are_last():
    def fn(params, x):
        for layer in params:
            x = x + jnp.tanh(x @ layer["up"]) @ layer["down"]
        return x

    params = [{"up": zoo.floats(4, 8), "down": zoo.floats(8, 4)} for _ in range(3)]
    by_path = roles(from_function(fn, params, zoo.floats(2, 4)))
    assert [path for path, role in by_path.items() if role == "head"] == ["2/down"]


def test_a_stack_of_scanned_layers_is_never_a_head():
    def fn(params, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params)[0]

    assert from_function(fn, zoo.floats(3, 4, 4), zoo.floats(2, 4))[""].axes == MatrixAxes(1, 2)


def test_auxiliary_losses_make_no_heads():
    def fn(params, x):
        gates = jax.nn.softmax(x @ params["router"])
        h = jnp.tanh(x @ params["w"]) * gates[:, :1]
        return jnp.mean(h @ params["head"]) + 0.01 * jnp.mean(gates.mean(0) ** 2)

    params = {"router": zoo.floats(4, 4), "w": zoo.floats(4, 4), "head": zoo.floats(4, 2)}
    assert roles(from_function(fn, params, zoo.floats(6, 4))) == {"router": "matrix", "w": "matrix", "head": "head"}


@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_recurrent_network_with_a_learned_initial_state(batch):
    def fn(params, xs):
        def step(h, x):
            h = jnp.tanh(h @ params["recurrent"] + x @ params["inputs"] + params["bias"])
            return h, h @ params["readout"]

        return jax.lax.scan(step, jnp.broadcast_to(params["initial"], (*batch, 8)), xs)[1]

    params = {
        "recurrent": zoo.floats(8, 8),
        "inputs": zoo.floats(3, 8),
        "bias": zoo.floats(8),
        "initial": zoo.floats(8),
        "readout": zoo.floats(8, 2),
    }
    by_path = roles(from_function(fn, params, zoo.floats(5, *batch, 3)))
    assert by_path == {
        "recurrent": "matrix", "inputs": "matrix", "bias": "vector", "initial": "vector", "readout": "head",
    }  # fmt: skip


def test_a_token_at_a_time_is_an_embedding_too():
    def fn(params, token):
        return params["embedding"][token] @ params["head"]

    params = {"embedding": zoo.floats(20, 8), "head": zoo.floats(8, 20)}
    assert roles(from_function(fn, params, zoo.tokens())) == {"embedding": "embedding", "head": "head"}
    batched = jax.vmap(fn, (None, 0))
    assert roles(from_function(batched, params, zoo.tokens(5))) == {"embedding": "embedding", "head": "head"}


def test_groups_of_a_contraction_are_pieces_of_fan_out():
    """Every head of x (b, h, i) has its own columns of w (i, h * o)."""

    def fn(params, x):
        y = jnp.einsum("bhi,iho->bho", x, params["w"].reshape(4, 3, 5))
        return jnp.tanh(y).reshape(2, 15) @ params["head"]

    params = {"w": zoo.floats(4, 15), "head": zoo.floats(15, 2)}
    assert from_function(fn, params, zoo.floats(2, 3, 4))["w"].axes == MatrixAxes(0, 1, split=(5, 5, 5))


@pytest.mark.parametrize(("channels", "groups", "expected"), [(1, 1, "matrix"), (2, 1, "matrix"), (4, 4, "depthwise")])
def test_networks_side_by_side_are_no_depthwise_convolution(channels, groups, expected):
    """A vmapped convolution is one with a group for every network."""

    def network(params, x):
        y = jax.lax.conv_general_dilated(
            x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )
        return jax.nn.relu(y).mean((1, 2)) @ params["head"]

    params = {"kernel": zoo.floats(3, 2, 2, channels // groups, 8), "head": zoo.floats(3, 8, 2)}
    for fn, case in ((jax.vmap(network), params), (network, jax.tree.map(lambda s: zoo.floats(*s.shape[1:]), params))):
        batch = (3,) if case is params else ()
        routes = from_function(fn, case, zoo.floats(*batch, 5, 4, 4, channels))
        assert roles(routes) == {"kernel": expected, "head": "head"}
        if expected == "matrix":
            first = len(batch)
            assert routes["kernel"].axes == MatrixAxes((first, first + 1, first + 2), first + 3)


@pytest.mark.parametrize("norm", ["none", "head", "all heads"])
def test_products_of_queries_and_keys_and_norms_take_nothing_from_fan_out(norm):
    """Levanter stores queries as (groups, queries per group, head_dim, in), and OLMo 2 normalizes all heads at once."""
    axes = {"none": (), "head": (-1,), "all heads": (-2, -1)}[norm]

    def normalized(x):
        return x / jnp.sqrt(jnp.mean(x**2, axes, keepdims=True) + 1e-6) if axes else x

    def fn(params, x):
        q = normalized(jnp.einsum("td,gqkd->tgqk", x, params["q"]).reshape(10, -1, 8)).reshape(10, 2, 3, 8)
        k = normalized(jnp.einsum("td,gkd->tgk", x, params["k"]))
        v = jnp.einsum("td,gkd->tgk", x, params["v"])
        y = jnp.einsum("gqtu,ugk->tgqk", jax.nn.softmax(jnp.einsum("tgqk,ugk->gqtu", q, k)), v)
        return (x + jnp.einsum("tgqk,dgqk->td", y, params["o"])) @ params["head"]

    params = {"q": (2, 3, 8, 48), "k": (2, 8, 48), "v": (2, 8, 48), "o": (48, 2, 3, 8), "head": (48, 97)}
    routes = from_function(fn, {name: zoo.floats(*shape) for name, shape in params.items()}, zoo.floats(10, 48))
    assert routes["q"].axes == MatrixAxes(3, (0, 1, 2))
    assert routes["k"].axes == routes["v"].axes == MatrixAxes(2, (0, 1))
    assert routes["o"].axes == MatrixAxes((1, 2, 3), 0)


@pytest.mark.parametrize("order", ["eod", "edo"])
def test_experts_that_are_summed_over_are_a_batch(order):
    def fn(params, x):
        y = jnp.einsum(f"td,{order}->teo", x, params["experts"])
        return jnp.tanh(jnp.einsum("te,teo->to", jax.nn.softmax(x @ params["router"]), y)) @ params["head"]

    sizes = {"e": 5, "o": 24, "d": 16}
    shapes = {"experts": tuple(sizes[axis] for axis in order), "router": (16, 5), "head": (24, 7)}
    routes = from_function(fn, {name: zoo.floats(*shape) for name, shape in shapes.items()}, zoo.floats(10, 16))
    assert routes["experts"].axes == MatrixAxes(order.index("d"), order.index("o"))


def test_scans_of_newer_jax_name_their_inputs_otherwise():
    """JAX after 0.11 packs the groups of a scan's inputs in a tuple-like `ft_in` in place of two counts."""
    groups = SimpleNamespace(unpack=lambda: (["w"], ["x", "y"], []))
    assert interpreter._scan_counts(SimpleNamespace(params={"ft_in": groups})) == (1, 2)
    assert interpreter._scan_counts(SimpleNamespace(params={"num_consts": 1, "num_carry": 2})) == (1, 2)


def test_through_a_sharded_function():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    @jax.jit
    def fn(params, x):
        sharded = jax.sharding.NamedSharding(mesh, spec("data"))
        w = jax.lax.with_sharding_constraint(params["w"], sharded)
        layer = jax.shard_map(
            lambda w, x: jnp.tanh(x @ jax.lax.all_gather(w, "data", axis=0, tiled=True)),
            mesh=mesh, in_specs=(spec("data"), spec()), out_specs=spec(), check_vma=False,
        )  # fmt: skip
        return layer(w, x) @ params["head"]

    params = {"w": zoo.floats(4, 8), "head": zoo.floats(8, 2)}
    routes = from_function(fn, params, zoo.floats(3, 4))
    assert roles(routes) == {"w": "matrix", "head": "head"}
    assert routes["w"].axes == MatrixAxes(0, 1)


def test_a_deep_unrolled_model_is_routed_in_seconds():
    def fn(params, x):
        for layer in params["layers"]:
            h = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True)) * layer["scale"]
            q, k, v = jnp.split(h @ layer["qkv"], 3, axis=-1)
            x = x + jax.nn.softmax(q @ k.swapaxes(-1, -2)) @ v @ layer["out"]
            x = x + jax.nn.gelu(x @ layer["up"]) @ layer["down"]
        return x @ params["head"]

    layer = {
        "scale": zoo.floats(8), "qkv": zoo.floats(8, 24), "out": zoo.floats(8, 8), "up": zoo.floats(8, 32),
        "down": zoo.floats(32, 8),
    }  # fmt: skip
    params = {"layers": [layer] * 48, "head": zoo.floats(8, 30)}
    start = time.perf_counter()
    by_path = roles(from_function(fn, params, zoo.floats(2, 5, 8)))
    assert [path for path, role in by_path.items() if role != "matrix" and "scale" not in path] == ["head"]
    # About two seconds on a slow core, most of it JAX's own tracing; quadratic bookkeeping would take minutes.
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("relu", {"w": zoo.floats(2, 2)}, zoo.floats(2)), "fn must be a function"),
        ((lambda p, x: x,), "params are missing"),
        ((lambda p, x: x, {}, zoo.floats(2)), "params must hold at least one floating array"),
        ((lambda p, x: x, {"w": 1.0}, zoo.floats(2)), "params must hold at least one floating array"),
        ((lambda p: p["w"].sum(), {"w": zoo.floats(2, 2)}), "example inputs are missing"),
        ((lambda p, x: p["w"].sum(), {"w": zoo.floats(2, 2)}, True), "example inputs are missing"),
    ],
)
def test_errors_say_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_function(*arguments)


def test_a_scale_written_as_a_batched_product_is_a_vector() -> None:
    def fn(params: Any, x: Any) -> Any:
        heads = jnp.einsum("bd,dhk->bhk", x, params["query"])
        heads = jnp.einsum("bhk,k->bhk", heads, params["scale"])
        return jnp.einsum("bhk,hkd->bd", jnp.tanh(heads), params["out"]) @ params["head"]

    params = {
        "query": zoo.floats(8, 2, 4), "scale": zoo.floats(4), "out": zoo.floats(2, 4, 8), "head": zoo.floats(8, 5)
    }  # fmt: skip
    routes = from_function(fn, params, zoo.floats(3, 8))
    assert [routes[name].role for name in params] == ["matrix", "vector", "matrix", "head"]
    assert routes["scale"].reason.startswith("multiplied with activations elementwise")
