"""The law of lineages: a step along a dimension moves along the parameter's axes by the strides of its atoms."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from jaxopt_tour.routing.by_use import lineage as ln


def coordinates(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter's coordinates of every element of an array of its flat indices, relative to the first element."""
    indices = np.stack(np.unravel_index(array, shape), axis=-1)
    return indices - indices.reshape(-1, len(shape))[0]


def predicted(lineage: ln.Lineage) -> np.ndarray:
    """The same coordinates, computed from the lineage only."""
    atoms = [atom for group in lineage.dims for atom in group]
    steps = np.indices([atom.size for atom in atoms]).reshape(len(atoms), -1)
    moved = np.zeros((steps.shape[1], len(lineage.shape)), int)
    for atom, step in zip(atoms, steps, strict=True):
        if atom.axis != ln.FILLER:
            moved[:, atom.axis] += step * atom.stride
    sizes = [math.prod(atom.size for atom in group) for group in lineage.dims]
    return moved.reshape(*sizes, len(lineage.shape))


OPERATIONS = st.lists(st.sampled_from(["move", "merge", "split", "slice", "drop", "new"]), max_size=6)


@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4), st.data())
def test_lineages_follow_transposes_reshapes_slices_and_broadcasts(shape, data):
    lineage, array = ln.whole(0, tuple(shape)), np.arange(math.prod(shape)).reshape(shape)
    for operation in data.draw(
        st.lists(st.sampled_from(["move", "merge", "split", "slice", "drop", "new"]), max_size=6)
    ):
        rank = array.ndim
        dim = data.draw(st.integers(0, max(rank - 1, 0)))
        sizes = list(array.shape)
        if operation == "move":
            order = data.draw(st.permutations(range(rank)))
            lineage, array = ln.permute(lineage, order), array.transpose(order)
        elif operation == "new":
            sizes.insert(dim, 2)
            dims = [d for d in range(rank + 1) if d != dim]
            lineage, array = ln.broadcast(lineage, sizes, dims), np.broadcast_to(np.expand_dims(array, dim), sizes)
        elif rank == 0:
            continue
        elif operation == "slice":
            start = data.draw(st.integers(0, sizes[dim] - 1))
            size = data.draw(st.integers(1, sizes[dim] - start))
            # Ends inside an inner axis leave a dimension that is no product of atoms: covered by the models.
            inner = math.prod([atom.size for atom in lineage.dims[dim] if atom.size > 1][1:])
            start, size = start // inner * inner, max(size // inner, 1) * inner
            index = [slice(None)] * rank
            index[dim] = slice(start, start + size)
            lineage, array = ln.cut(lineage, dim, start, size), array[tuple(index)]
        elif operation == "drop" and sizes[dim] == 1:
            lineage, array = ln.squeeze(lineage, [dim]), array.squeeze(dim)
        elif operation in ("merge", "split"):
            if operation == "merge" and dim + 1 < rank:
                sizes[dim : dim + 2] = [sizes[dim] * sizes[dim + 1]]
            elif operation == "split":
                factor = data.draw(st.sampled_from([f for f in (1, 2, 3) if sizes[dim] % f == 0]))
                sizes[dim : dim + 1] = [factor, sizes[dim] // factor]
            reshaped = ln.reshape(lineage, sizes)
            if reshaped is None:
                continue  # a split across atoms, such as (2, 3) -> 6 -> (3, 2)
            lineage, array = reshaped, array.reshape(sizes)
        assert tuple(math.prod(atom.size for atom in group) for group in lineage.dims) == array.shape
    np.testing.assert_array_equal(predicted(lineage), coordinates(array, tuple(shape)))


def test_a_split_across_two_axes_is_refused():
    merged = ln.reshape(ln.whole(0, (4, 6)), (24,))
    assert merged is not None
    assert ln.reshape(merged, (3, 8)) is None
    assert ln.reshape(merged, (4, 6)) == ln.whole(0, (4, 6))


def test_slices_leave_their_range():
    half = ln.cut(ln.whole(0, (4, 6)), 1, 3, 3)
    assert half.parts == {(1, 3, 6, 6)}
    assert ln.cut(half, 1, 1, 2).parts == {(1, 3, 6, 6), (1, 4, 6, 6)}
    assert not ln.cut(ln.whole(0, (4, 6)), 1, None, 3).parts


def test_slices_of_an_inner_factor_repeat():
    heads = ln.reshape(ln.whole(0, (24,)), (4, 3, 2))  # (heads, query key value, elements)
    assert heads is not None
    assert ln.cut(heads, 1, 1, 1).parts == {(0, 2, 4, 6)}
    odd = ln.strided(ln.whole(0, (24,)), 0, 1, 2)
    assert odd.parts == {(0, 1, 2, 2)} and odd.dims == ((ln.Atom(0, 12, 2, None),),)


def test_sides_of_three_factors():
    """`x @ (b @ (c @ a))`: data flows in at b's rows and c's and a's shared axes."""
    b, c, a = (ln.whole(i, shape) for i, shape in enumerate([(8, 2), (2, 3), (3, 9)]))
    atom = ln.Atom
    origins = [
        b.replace(dims=((atom(0, 8),), ()), hidden=((1, "left", (atom(1, 2),)),)),
        c.replace(dims=((), ()), hidden=((0, "left", (atom(1, 3),)), (1, "right", (atom(0, 2),)))),
        a.replace(dims=((), (atom(1, 9),)), hidden=((0, "right", (atom(0, 3),)),)),
    ]
    for sides, (rows, columns) in zip(ln.resolve_sides(origins, [0], []), [(8, 2), (2, 3), (3, 9)], strict=True):
        assert sides["in"] == (atom(0, rows),) and sides["out"] == (atom(1, columns),)
        assert "?" not in sides
