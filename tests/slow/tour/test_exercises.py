"""Checks of exercises: what is wrong is said, what is right is accepted."""

from __future__ import annotations

from jaxopt_tour.tour.exercises import grade


def check_double(answer):
    """Exercise 7"""
    assert answer(3) == 6, f"twice 3 is 6, not {answer(3)}"


def test_a_right_answer_is_accepted(capsys):
    assert grade(check_double, lambda x: 2 * x)
    assert capsys.readouterr().out == "Exercise 7: right.\n"


def test_a_wrong_answer_is_told_why(capsys):
    assert not grade(check_double, lambda x: x)
    # pytest adds the values of an assertion to its message.
    assert capsys.readouterr().out.startswith("Exercise 7: not yet. twice 3 is 6, not 3")


def test_an_answer_that_fails_does_not_end_the_notebook(capsys):
    assert not grade(check_double, None)
    assert "Exercise 7: not yet. 'NoneType' object is not callable" in capsys.readouterr().out
    assert not grade(check_double, lambda x: (_ for _ in ()).throw(KeyError()))
    assert "not yet. KeyError" in capsys.readouterr().out
