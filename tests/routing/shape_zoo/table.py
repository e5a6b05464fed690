"""Print the tables of the zoo: `python -m tests.routing.shape_zoo.table`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxopt_tour.routing import routes_by_name
from tests.routing.shape_zoo.models import Model, blind_models, held_back_models, open_models

TITLES = "| framework | models | built | read | matrices | wrong | missed |\n|---|---|---|---|---|---|---|"


def row(models: Sequence[Model]) -> str:
    """Models, built and read ones, matrices, wrong parameters, and the share of the elements that is missed."""
    wrong = matrices = elements = missed = 0
    for model in models:
        verdicts = model.verdicts(routes_by_name(model.tree()))
        sizes = {p.path: math.prod(p.shape) for p in model.parameters if p.axes is not None}
        wrong += list(verdicts.values()).count("wrong")
        matrices += len(sizes)
        elements += sum(sizes.values())
        missed += sum(size for path, size in sizes.items() if verdicts[path] == "missed")
    built = {model.name.split(", sizes ")[0]: model.built for model in models}
    read = len(built) - sum(built.values())
    return f"{len(built)} | {sum(built.values())} | {read} | {matrices} | {wrong} | {missed / elements:.1%}"


def kind(model: Model) -> str:
    """The framework; MaxText's models are of real sizes and would outweigh all others."""
    return "nnx, MaxText" if model.name.startswith("maxtext ") else model.framework


if __name__ == "__main__":
    for title, models in (("Open", open_models()), ("Held back", held_back_models()), ("Blind", blind_models())):
        print(f"{title}:\n\n{TITLES}")
        for name in sorted({kind(model) for model in models}):
            print(f"| {name} | {row([model for model in models if kind(model) == name])} |")
        print(f"| all but MaxText | {row([m for m in models if 'MaxText' not in kind(m)])} |\n")
