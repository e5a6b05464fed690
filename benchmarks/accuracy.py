"""How close to orthogonal every function gets, under every prescale and in every dtype, on made and recorded matrices.

python benchmarks/accuracy.py [--quick] [--no-write] [--render] [--default NAME]

Prints tables, writes benchmarks/results/accuracy.json and the tables of docs/accuracy.md, and exits with 1 where the
default (or its quintics, or `fast`) in float32 has a larger polar error than Optax's default on any recorded matrix.
`--quick` takes two small matrices, float32 and one form alone, and writes nothing.

For M = U S V^T over its numerical range (singular values above max(m, n) eps s_max in float32) and the result O:

    polar error     |U^T O V - I|_F / |I|_F: the root mean square of |sigma - 1|, as long as O turns no singular vectors
    deviation       the largest |sigma - 1|, with sigma the singular values of U^T O V
    alignment       <O, M> / |M|_*: how much of the steepest descent under the spectral norm is obtained
    spectral norm   |O|_2, beside the alignment because a longer O aligns more
    outside         the part of O outside the range of M, in Frobenius norm, as a share of |U V^T|_F
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import pathlib
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib._muon as peer
from _common import RESULTS, ROOT, write
from accuracy_cases import Case, generated, recorded, small

import jaxopt_tour as jt
from jaxopt_tour.coefficients import PolynomialCoefficients, RationalCoefficients
from jaxopt_tour.coefficients.operations import operations

DOCUMENT = ROOT / "docs" / "accuracy.md"

#: What the default and `fast` are on CPU in full precision, and where inverses do not pay.
ZOLOTAREV, QUINTICS = "zolotarev", "polar_express"
SHORT, DEGREE_17 = "zolotarev(1, 2e-3, inverses=2)", "polar_express(2, 1e-2, degree=17)"
DEFAULTS = (ZOLOTAREV, SHORT, QUINTICS)

#: All coefficients, by their names in the tables, and whether they can be generated for any prescale.
COEFFICIENTS: dict[str, tuple[PolynomialCoefficients | RationalCoefficients, bool]] = {
    ZOLOTAREV: (jt.coefficients.zolotarev(), True),
    SHORT: (jt.coefficients.zolotarev(1, 2e-3, inverses=2), True),
    "keller_jordan": (jt.coefficients.keller_jordan(), False),
    "you": (jt.coefficients.you(), False),
    "modula": (jt.coefficients.modula(), False),
    "turbo": (jt.coefficients.turbo(), False),
    "cubic": (jt.coefficients.cubic(), False),
    QUINTICS: (jt.coefficients.polar_express(), True),
    DEGREE_17: (jt.coefficients.polar_express(2, 1e-2, degree=17), True),
    "polar_express(4, 1e-2)": (jt.coefficients.polar_express(4, 1e-2), True),
    "polar_express(3, 3e-3, degree=(9, 17, 17))": (jt.coefficients.polar_express(3, 3e-3, degree=(9, 17, 17)), False),
    "polar_express(8, 1e-3)": (jt.coefficients.polar_express(8, 1e-3), True),
    "cans": (jt.coefficients.cans(), True),
}
PRESCALES = ("frobenius", "schatten4", "schatten8")
#: dtype and form; bfloat16 has too few bits for the Gram form.
ITERATIONS = (
    ("float32", "standard"),
    ("float32", "gram"),
    ("bfloat16", "standard"),
    ("float16", "standard"),
    ("float16", "gram"),
)
OPTAX = "optax default"
#: What the tables by dtype show; the results file has all.
IN_EVERY_DTYPE = (
    ZOLOTAREV,
    SHORT,
    "keller_jordan",
    QUINTICS,
    DEGREE_17,
    "polar_express(4, 1e-2)",
    "polar_express(3, 3e-3, degree=(9, 17, 17))",
    "polar_express(8, 1e-3)",
    "cans",
)
MEASURES = ("polar_error", "deviation", "alignment", "spectral_norm", "outside")
PRESCALE_NAMES = {"frobenius": "Frobenius", "schatten4": "Schatten-4", "schatten8": "Schatten-8", "aol": "AOL"}


def measure(one: Case, o: np.ndarray) -> dict[str, float] | None:
    """The measures named above; None where the result is not finite."""
    o = np.asarray(o, np.float64)
    if not np.isfinite(o).all():
        return None
    inner = one.u.T @ o @ one.vt.T
    size = np.sqrt(len(one.s))
    sigma = np.sqrt(np.maximum(np.linalg.eigvalsh(inner.T @ inner), 0))
    gram = o @ o.T if o.shape[0] < o.shape[1] else o.T @ o
    return {
        "polar_error": float(np.linalg.norm(inner - np.eye(len(one.s))) / size),
        "deviation": float(np.abs(sigma - 1).max()),
        "alignment": float(np.sum(o * one.matrix) / one.s.sum()),
        "spectral_norm": float(np.sqrt(np.linalg.eigvalsh(gram)[-1])),
        "outside": float(np.sqrt(max(0.0, np.sum(o**2) - np.sum(inner**2))) / size),
    }


def apply(function: Callable[[jax.Array], jax.Array], cases: Mapping[str, Case]) -> dict[str, dict[str, float] | None]:
    """The measures of a function of stacks of matrices, by case; one compilation for every shape."""
    found = {}
    compiled = jax.jit(function)
    by_shape = itertools.groupby(
        sorted(cases, key=lambda name: cases[name].matrix.shape), lambda name: cases[name].matrix.shape
    )
    for _, group in by_shape:
        names = list(group)
        results = compiled(jnp.stack([cases[name].matrix for name in names]))
        found |= {name: measure(cases[name], np.asarray(o)) for name, o in zip(names, results, strict=True)}
    return {name: found[name] for name in cases}


def optax_default(stack: jax.Array) -> jax.Array:
    """optax.contrib.muon's at its defaults, matrix by matrix."""
    coefficients = jnp.asarray(peer._DEFAULT_NS_COEFFS)
    return jnp.stack([peer.orthogonalize_via_newton_schulz(x, coefficients, 5, "frobenius", 1e-8) for x in stack])


@dataclasses.dataclass(frozen=True)
class Row:
    """The same coefficients, prescale, dtype and form on every case."""

    coefficients: str
    prescale: str
    own: bool  # the default prescale of these coefficients
    dtype: str
    form: str
    measures: dict[str, dict[str, float] | None]

    def values(self, measure: str, names: Iterable[str]) -> list[float]:
        """One measure of the named cases, infinite where the result was not finite."""
        found = (self.measures[name] for name in names)
        return [float("inf") if each is None else each[measure] for each in found]


def rows_of(cases: Mapping[str, Case], quick: bool = False) -> list[Row]:
    """Optax's default, then all coefficients x prescale x dtype and form."""
    rows = [Row(OPTAX, "frobenius", True, "float32", "standard", apply(optax_default, cases))]
    for name, (coefficients, any_prescale) in COEFFICIENTS.items():
        for prescale in PRESCALES if any_prescale and not quick else (coefficients.prescale,):
            made = dataclasses.replace(coefficients, prescale=prescale)
            rational = isinstance(coefficients, RationalCoefficients)  # one form, and full precision
            for dtype, form in (("float32", form_of(name)),) if quick or rational else ITERATIONS:
                if dtype != "float32" and degree(coefficients) > 5:
                    continue  # half precision refuses it
                function = jt.Orthogonalizer(made, form=form, dtype=dtype)
                rows.append(Row(name, prescale, prescale == coefficients.prescale, dtype, form, apply(function, cases)))
        print(f"measured {name}", file=sys.stderr)
    return rows


def worse_than_optax(rows: Sequence[Row], names: Iterable[str], coefficients: str, dtype: str = "float32") -> list[str]:
    """Where coefficients under their own prescale have a larger polar error than Optax's default, in either form."""
    names = list(names)
    (theirs,) = (row for row in rows if row.coefficients == OPTAX)
    return [
        f"{name}: {coefficients} ({dtype}, {row.form} form) {ours:.4f}, Optax's default {other:.4f}"
        for row in rows
        if row.coefficients == coefficients and row.own and row.dtype == dtype
        for name, ours, other in zip(
            names, row.values("polar_error", names), theirs.values("polar_error", names), strict=True
        )
        if not ours <= other
    ]


def families_of(cases: Mapping[str, Case]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, one in cases.items():
        found.setdefault(one.family, []).append(name)
    return found


def summary(rows: Sequence[Row], families: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """What the results file has of every row: of each family and measure the number, or [least, median, largest].

    None stands for a result that was not finite.
    """

    def condensed(row: Row, measure: str, names: Sequence[str]) -> Any:
        values = row.values(measure, names)
        if not np.isfinite(values).all():
            return None
        rounded = [float(f"{statistic(values):.4g}") for statistic in (min, statistics.median, max)]
        return rounded if len(names) > 1 else rounded[0]

    return [
        {
            "coefficients": row.coefficients,
            "prescale": row.prescale,
            "own": row.own,
            "dtype": row.dtype,
            "form": row.form,
            **{
                measure: {family: condensed(row, measure, names) for family, names in families.items()}
                for measure in MEASURES
            },
        }
        for row in rows
    ]


def number(value: float) -> str:
    """Three digits at most, short."""
    if value < 1e-9:  # below any rounding that matters, and different on every machine
        return "0"
    return f"{value:.3f}".removeprefix("0") if value >= 5e-4 else f"{value:.0e}".replace("e-0", "e-")


def cell(value: float | Sequence[float] | None) -> str:
    """A number, or of several matrices the least and the largest."""
    if value is None:
        return "not finite"
    ends = [number(value[0]), number(value[-1])] if isinstance(value, Sequence) else [number(value)]
    return " to ".join(dict.fromkeys(ends))


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines))


def form_of(name: str) -> str:
    """The form that the tables of float32 show: the standard one where there is one."""
    return "gram" if isinstance(COEFFICIENTS.get(name, (None,))[0], RationalCoefficients) else "standard"


def products(coefficients: PolynomialCoefficients | RationalCoefficients) -> str:
    """How many products of m x m matrices, and inverses, the Gram form takes, beside X X^T and Q X."""
    if isinstance(coefficients, RationalCoefficients):
        inverses = sum(len(function.shifts) for function in coefficients.functions)
        between = 2 * (coefficients.steps - 1)
        return f"{inverses} inverses" + (f", {between}" if between else "")
    return str(operations(coefficients, 1, 0, "gram") // 2)


def degree(coefficients: PolynomialCoefficients | RationalCoefficients) -> int:
    """Of a step: of a rational function, that of its numerator."""
    if isinstance(coefficients, RationalCoefficients):
        return 2 * len(coefficients.functions[0].shifts) + 1
    return coefficients.degree


def cost(coefficients: PolynomialCoefficients | RationalCoefficients, m: int, n: int) -> float:
    """Operations in the cheaper form, as a share of five Keller Jordan steps in the standard form."""
    forms = ("gram",) if isinstance(coefficients, RationalCoefficients) else ("standard", "gram")
    least = min(operations(coefficients, m, n, form) for form in forms)
    return least / operations(jt.coefficients.keller_jordan(), m, n, "standard")


def by_cost() -> str:
    """What all coefficients cost, and the error that they guarantee."""
    lines = [
        [
            f"`{name}`",
            str(coefficients.steps),
            str(degree(coefficients)),
            PRESCALE_NAMES[coefficients.prescale],
            products(coefficients),
            *(f"{cost(coefficients, m, n):.2f}" for m, n in ((768, 768), (768, 3072))),
            *(number(coefficients.worst_error(bound)) for bound in (1e-1, 1e-2, 1e-3)),
        ]
        for name, (coefficients, _) in COEFFICIENTS.items()
    ]
    worst = [f"worst on [{bound}, 1]" for bound in ("0.1", "0.01", "0.001")]
    head = ["coefficients", "steps", "degree", "prescale", "products", "cost, square", "cost, 1:4"]
    return markdown([*head, *worst], lines)


def table(
    rows: Sequence[Mapping[str, Any]],
    measure: str,
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
    where: Callable[[Mapping[str, Any]], bool],
) -> str:
    """A line for every row of the summary that `where` keeps: the columns, then the measure for every family."""
    # A matrix and its transpose give the same numbers; one column is enough for the eye.
    families = [family for family in rows[0][measure] if family != "Gaussian 1024x256"]
    lines = [
        [column(row) for column in columns.values()] + [cell(row[measure][family]) for family in families]
        for row in rows
        if row["coefficients"] != OPTAX and where(row)
    ]
    return markdown([*columns, *(family.replace(", ", "<br>") for family in families)], lines)


def longest(row: Mapping[str, Any]) -> str:
    """The largest spectral norm of a result."""
    norms = [value[-1] if isinstance(value, Sequence) else value for value in row["spectral_norm"].values()]
    return "not finite" if None in norms else number(max(norms))


def tables_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The tables, from the summary; the document shows some of them."""

    def plain(row: Mapping[str, Any]) -> bool:
        return (row["dtype"], row["form"]) == ("float32", form_of(row["coefficients"]))

    def plain_own(row: Mapping[str, Any]) -> bool:
        return plain(row) and row["own"]

    def compared(row: Mapping[str, Any]) -> bool:
        return row["own"] and row["coefficients"] in IN_EVERY_DTYPE

    def for_any_prescale(row: Mapping[str, Any]) -> bool:
        return plain(row) and COEFFICIENTS[row["coefficients"]][1]

    name = {"coefficients": lambda row: f"`{row['coefficients']}`"}
    iteration = name | {"dtype": lambda row: row["dtype"], "form": lambda row: row["form"]}
    prescale = name | {"prescale": lambda row: PRESCALE_NAMES[row["prescale"]]}
    return {
        "coefficients": by_cost(),
        "polar error": table(rows, "polar_error", name, plain_own),
        "deviation": table(rows, "deviation", name, plain_own),
        "alignment": table(rows, "alignment", name | {"largest \\|O\\|₂": longest}, plain_own),
        "polar error by dtype": table(rows, "polar_error", iteration, compared),
        "alignment by dtype": table(rows, "alignment", iteration | {"largest \\|O\\|₂": longest}, compared),
        "outside the range by dtype": table(rows, "outside", iteration, compared),
        "polar error by prescale": table(rows, "polar_error", prescale, for_any_prescale),
    }


def put(document: pathlib.Path, tables: Mapping[str, str]) -> None:
    """Replace what stands between `<!-- NAME: written by ... -->` and `<!-- end -->`, where NAME is a table."""
    text = document.read_text(encoding="utf-8")

    def replaced(match: re.Match[str]) -> str:
        if match["name"] not in tables:
            raise ValueError(f"{document} has a place for {match['name']!r}; tables are {', '.join(tables)}")
        return match["mark"] + tables[match["name"]] + match["end"]

    pattern = r"(?P<mark><!-- (?P<name>[^\n:]+): written by [^\n]*-->\n).*?(?P<end>\n<!-- end -->)"
    document.write_text(re.sub(pattern, replaced, text, flags=re.S), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small matrices, float32, one form, nothing written")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--render", action="store_true", help="write the document again from the results file")
    parser.add_argument("--default", default=ZOLOTAREV, choices=COEFFICIENTS, help="what Optax's is compared with")
    arguments = parser.parse_args(argv)
    if arguments.render:
        put(DOCUMENT, tables_of(json.loads((RESULTS / "accuracy.json").read_text(encoding="utf-8"))["results"]["rows"]))
        return 0
    if arguments.quick:
        cases = small()
        compared = list(cases)
    else:
        real = recorded()
        cases = generated() | real
        compared = list(real)
    rows = rows_of(cases, arguments.quick)
    summed_up = summary(rows, families_of(cases))
    tables = tables_of(summed_up)
    for title, text in tables.items():
        print(f"\n{title}\n\n{text}")
    if not (arguments.quick or arguments.no_write):
        one_by_one = {
            row.coefficients: {name: float(f"{row.values('polar_error', [name])[0]:.4g}") for name in compared}
            for row in rows
            if row.own and row.dtype == "float32" and row.form == form_of(row.coefficients)
        }
        path = write("accuracy", {"recorded_polar_error_float32": one_by_one, "rows": summed_up})
        put(DOCUMENT, tables)
        print(f"\nwritten to {path.relative_to(ROOT)} and {DOCUMENT.relative_to(ROOT)}")
    print(f"\nlarger polar error than Optax's default (float32), of {len(compared)} matrices in each form:")
    for name, dtype in itertools.product(dict.fromkeys((arguments.default, *DEFAULTS)), dict(ITERATIONS)):
        if any((row.coefficients, row.dtype) == (name, dtype) for row in rows):
            print(f"  {name} in {dtype}: {len(worse_than_optax(rows, compared, name, dtype))}")
    worse = [
        line
        for name in dict.fromkeys((arguments.default, *DEFAULTS))
        for line in worse_than_optax(rows, compared, name)
    ]
    print(
        "\nFAILED: the default is worse than Optax's:" if worse else "\nThe default is nowhere worse.", *worse, sep="\n"
    )
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
