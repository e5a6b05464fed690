"""Two readings of second moments: Adam's as the variance of the gradient, and Muon as Shampoo that accumulates none.

The questions are asked in `.second_moment` and `.accumulation`; here they are one experiment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jaxopt_tour.tour.experiments import accumulation, accumulation_runs, second_moment
from jaxopt_tour.tour.laboratory.cells import Cells
from jaxopt_tour.tour.laboratory.comparison import trials_in_words, tuned_in_words
from jaxopt_tour.tour.laboratory.experiment import Experiment, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run(cells: Cells) -> None:
    """Fill the cells."""
    accumulation_runs.run(cells)
    second_moment.run(cells)


def tables(cells: Cells) -> list[Table]:
    """What v is made of, Shampoo's updates against the polar factor, losses, and all trials."""
    return [second_moment.made_of(cells), *accumulation.tables(cells), _trials(cells)]


def _trials(cells: Cells) -> Table:
    settings, rules = second_moment.plan(cells).settings, accumulation_runs.trained_rules(cells)
    searches = [(setting.name, second_moment.adam_tuned(cells, setting)) for setting in settings]
    searches += [(f"{rule.name}, small MLP", accumulation_runs.tuned_for(cells, rule)) for rule in rules]
    return Table(
        "All trials: rate (and momentum, where it was tuned), and the mean loss of two tuning seeds.",
        ["search", "trials", "best", "tried"],
        [
            [name, str(tuned["trials"]), tuned_in_words(tuned), trials_in_words(tuned["tried"])]
            for name, tuned in searches
        ],
    )


def answer(cells: Cells) -> str:
    """What the intervals allow."""
    found = [*second_moment.answer(cells), *accumulation.answer(cells)]
    found.append(
        "Each interval is 95 % on its own, over seeds of small models in short runs on one machine; mean and variance "
        "were measured at one point, v remembers many. Nothing is shown for large models, for other roots or stale "
        "preconditioners, nor that being near the polar factor is why a rule trains well."
    )
    return " ".join(sentence for sentence in found if sentence)


def figure(cells: Cells) -> Figure:
    """The variance's part of v over training, ranks, distance to the polar factor and loss, both by decay."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10.5, 7.6), layout="constrained")
    axes = drawn.subplots(2, 2)
    second_moment.draw_shares(axes[0, 0], cells)
    second_moment.draw_ranks(axes[0, 1], cells)
    accumulation.draw_distance(axes[1, 0], cells)
    accumulation.draw_losses(axes[1, 1], cells)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return drawn


EXPERIMENT: Final = Experiment(
    name="variance-and-shampoo",
    title="Adam's second moment as a variance, and Muon as Shampoo without accumulation",
    question=(
        "Is Adam's second moment the variance of the gradient or its squared mean, and how near is Muon to Shampoo, by "
        "its updates and by its losses, as Shampoo averages less and less?"
    ),
    protocol=(
        "AdamW trains an MLP of 784, 64, 64 and 10 units on Fashion-MNIST at three batch sizes, its rate tuned in each "
        "(7 trials, more from an edge); six times a run, gradients of 1,024 fresh examples give mean and variance "
        "entry by entry, and E[g^2] = mean^2 + variance / B is held against v.",
        "Gradients recorded while Muon trains a small MLP are run through Shampoo with decay 0 to 0.99, and every "
        "update is compared with the exact polar factor of the same matrix.",
        "AdamW, Muon and Shampoo with four decays train that MLP, rate and momentum tuned by the same 12 trials for "
        "all, and by more where the best lies at an edge, on tuning seeds; losses are read on other seeds, seed by "
        "seed, with 95 % intervals.",
    ),
    run=run,
    figure=figure,
    tables=tables,
    answer=answer,
    change_our_mind=(
        "Another order with larger models and batches, with averages that start warm, with the ridge tuned too, or "
        "with preconditioners of momentum-free gradients, as published."
    ),
)
