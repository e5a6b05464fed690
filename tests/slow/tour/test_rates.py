"""The sweep finds the bottom, widens at an edge, and the package has a settled rate for every contender."""

from __future__ import annotations

import json
import math

import pytest

from jaxopt_tour.tour import rates
from jaxopt_tour.tour.contenders import CONTENDERS, OPTIMIZERS, Contender, contenders


@pytest.mark.parametrize("start", [1e-4, 0.01, 0.3, 30.0])
def test_the_search_finds_the_bottom_wherever_it_starts(start):
    best, scores = rates.best_rate(lambda rate: abs(math.log10(rate) - math.log10(0.02)), start)
    assert 0.02 / rates.FINE <= best <= 0.02 * rates.FINE
    assert min(scores) < best < max(scores)


def test_a_bottom_in_the_middle_takes_five_rates():
    _, scores = rates.best_rate(lambda rate: abs(math.log10(rate) + 2), 0.01)
    assert sorted(scores) == [0.0032, 0.0056, 0.01, 0.018, 0.032]


def test_rates_that_diverge_are_never_best():
    best, _ = rates.best_rate(lambda rate: math.nan if rate > 0.005 else -rate, 1.0)
    assert 0.005 / rates.COARSE < best <= 0.005


def test_a_search_without_a_bottom_ends_at_an_edge():
    best, scores = rates.best_rate(lambda rate: -rate, 1.0)
    assert best == max(scores) and len(scores) <= rates.MOST_RATES + 2


def test_a_sweep_says_all_that_was_tried(tiny):
    seen = []
    entry = rates.sweep(
        tiny, Contender("half", "adam", share_of_steps=0.5), steps=20, seeds=(1000, 1001), start=0.03,
        on_rate=lambda rate, losses: seen.append((rate, losses)),
    )  # fmt: skip
    assert entry["steps"] == 10 and entry["seeds"] == [1000, 1001]
    assert entry["validation_loss"] == {f"{rate:g}": losses for rate, losses in sorted(seen)}
    means = {float(rate): sum(losses) / 2 for rate, losses in entry["validation_loss"].items()}
    assert entry["learning_rate"] == min(means, key=means.get)
    assert entry["inside_the_grid"] == (min(means) < entry["learning_rate"] < max(means))
    assert rates.is_current(entry, Contender("half", "adam", share_of_steps=0.5), 20, (1000, 1001))
    assert not rates.is_current(entry, Contender("half", "adam"), 20, (1000, 1001))
    assert not rates.is_current(None, Contender("half", "adam"), 20, (1000, 1001))


def test_writing_a_rate_leaves_the_others(tmp_path):
    path = tmp_path / "rates.json"
    rates.write_rate(path, "cnn", "adam", {"learning_rate": 0.1})
    rates.write_rate(path, "cnn", "sgd", {"learning_rate": 0.2})
    assert rates.learning_rate("cnn", "adam", path) == 0.1 and rates.learning_rate("cnn", "sgd", path) == 0.2
    with pytest.raises(ValueError, match="no learning rate for muon on cnn; find one with: jaxopt-tour sweep"):
        rates.learning_rate("cnn", "muon", path)


def test_the_package_has_a_settled_rate_for_every_contender():
    embedded = json.loads(rates.EMBEDDED.read_text())["rates"]
    for task, group in CONTENDERS.items():
        for contender in group:
            entry = embedded[task][contender.name]
            finite = {
                rate: each for rate, each in entry["validation_loss"].items() if None not in each
            }  # null: diverged
            losses = {float(rate): sum(each) / len(each) for rate, each in finite.items()}
            assert entry["learning_rate"] == min(losses, key=losses.get), (task, contender.name)
            assert entry["inside_the_grid"], (task, contender.name)
            assert min(entry["seeds"]) >= 1000, "tuning seeds must not be the race's"


def test_every_contender_has_an_optimizer_and_a_first_guess():
    for group in CONTENDERS.values():
        for contender in group:
            assert contender.optimizer in OPTIMIZERS and contender.name in rates.FIRST_GUESS
    assert [each.name for each in CONTENDERS["cnn"]] == list(OPTIMIZERS)


def test_contenders_are_chosen_by_name_in_the_tables_order():
    assert [each.name for each in contenders("gpt", ("muon", "adamw"))] == ["adamw", "muon"]
    assert contenders("gpt", ("sgd",)) == ()
    with pytest.raises(ValueError, match=r"among sgd, .*muon-0\.7; got lion, sophia"):
        contenders("gpt", ("lion", "adam", "sophia"))
    assert Contender("x", "muon", 0.7).steps(300) == 210
