"""Print the table of the zoo: ``python -m tests.routing.zoo_table``."""

from __future__ import annotations

from collections.abc import Sequence

from jaxopt_tour.routing import routes_by_name
from tests.routing.shape_zoo import Model, held_back_models, open_models


def row(models: Sequence[Model]) -> str:
    """Models, matrices, wrong parameters, and the largest share of elements missed in one model."""
    verdicts = [(model, model.verdicts(routes_by_name(model.tree()))) for model in models]
    matrices = sum(parameter.axes is not None for model in models for parameter in model.parameters)
    wrong = sum(list(verdict.values()).count("wrong") for _, verdict in verdicts)
    shares = sorted(model.missed_share(routes_by_name(model.tree())) for model in models)
    complete = sum(share <= 0.02 for share in shares)
    return f"{len(models)} | {matrices} | {wrong} | {complete} | {shares[len(shares) // 2]:.1%} | {shares[-1]:.1%}"


if __name__ == "__main__":
    print("| trees | number | matrices | wrong | at most 2 % missed | median missed | most missed |")
    print("|---|---|---|---|---|---|---|")
    for title, models in (("seen", open_models()), ("held back", held_back_models())):
        for kind in (True, False):
            chosen = [model for model in models if model.conventional is kind]
            print(f"| {title}, {'conventional' if kind else 'other'} | {row(chosen)} |")
    for framework in sorted({model.framework for model in open_models() + held_back_models()}):
        chosen = [model for model in open_models() + held_back_models() if model.framework == framework]
        print(f"| {framework} | {row(chosen)} |")
