"""When a study starts another trial and when it ends, and which ranges it takes."""

from typing import Any

import pytest

from mlcore.errors import InvalidParameter
from mlcore.fitting.recipes import RECIPES
from studies.rules import Objective, StudyState, TrialState, compute_trial_state, count_due, find_end
from studies.search_space import describe, parse_range, read_ranges

Q, R, C, P, F, X = (
    TrialState.QUEUED,
    TrialState.RUNNING,
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.FAILED,
    TrialState.CANCELLED,
)
V7 = RECIPES["v7_fixed"]


@pytest.mark.parametrize(
    ("states", "due"),
    [
        ([], 2),
        ([R], 1),
        ([R, Q], 0),
        ([C, C, C, R], 0),
        ([C, C, C, C], 0),
        ([C, P, F], 1),
        ([F, F, F, F], 0),
        ([F] * 5, 0),
        ([*[F] * 5, R], 0),
    ],
)
def test_so_many_trials_are_due(states: list[TrialState], due: int) -> None:
    assert count_due(states, max_trials=4 if len(states) < 5 else 9, parallel=2) == due


@pytest.mark.parametrize(
    ("states", "obstacle", "end"),
    [
        ([C, R], None, None),
        ([C, R], "the time limit is reached", None),
        ([C, P], None, None),
        ([C, P], "the time limit is reached", StudyState.FINISHED),
        ([F, P], "the time limit is reached", StudyState.FAILED),
        ([], "dataset 3 was withdrawn", StudyState.FAILED),
        ([C, P, F, X, C, P], None, StudyState.FINISHED),
        ([P, P, F, X, P, P], None, StudyState.FAILED),
        ([F] * 5, None, StudyState.FAILED),
        ([F] * 4, None, None),
    ],
)
def test_a_study_ends(states: list[TrialState], obstacle: str | None, end: StudyState | None) -> None:
    found = find_end(states, max_trials=6, obstacle=obstacle)
    assert (found and found.state) == end
    assert found is None or found.reason


@pytest.mark.parametrize(
    ("state", "is_pruned", "expected"),
    [
        ("queued", False, Q),
        ("running", True, R),
        ("succeeded", False, C),
        ("cancelled", True, P),
        ("cancelled", False, X),
        ("failed", True, F),
    ],
)
def test_a_trial_stands_as_its_run(state: str, is_pruned: bool, expected: TrialState) -> None:
    assert compute_trial_state(state, is_pruned=is_pruned) == expected


class TestRanges:
    def test_are_read_in_the_order_of_the_settings(self) -> None:
        asked = {
            "hidden_widths": parse_range("choice 32-32-16 64-32-16"),
            "learning_rate": parse_range("log 1e-4 1e-2"),
            "epochs": parse_range("int 2 20"),
        }
        found = read_ranges(V7, asked, Objective.LOSS)
        assert [chosen.name for chosen in found] == ["epochs", "learning_rate", "hidden_widths"]
        assert [chosen.text for chosen in found] == [
            "2 to 20",
            "0.0001 to 0.01, logarithmic",
            "32-32-16, 64-32-16",
        ]
        assert [describe(chosen.name, chosen.document) for chosen in found] == [c.text for c in found]
        assert read_ranges(V7, {c.name: c.document for c in found}, Objective.LOSS) == found

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            ({}, "1 to 12"),
            ({"depth": {"kind": "int", "low": 1, "high": 2}}, "no such setting"),
            ({"horizon": {"kind": "int", "low": 4, "high": 8}}, "changes what is judged"),
            ({"label_smoothing": {"kind": "float", "low": 0, "high": 0.3}}, "formula of the loss"),
            ({"learning_rate": {"kind": "log", "low": 1e-6, "high": 1e-2}}, "1e-05 to 0.01"),
            ({"learning_rate": {"kind": "log", "low": 1e-2, "high": 1e-3}}, "low must be below high"),
            ({"learning_rate": {"kind": "int", "low": 1, "high": 2}}, "no whole number"),
            ({"epochs": {"kind": "float", "low": 1, "high": 2}}, "is a whole number"),
            ({"epochs": {"kind": "int", "low": 1.5, "high": 3}}, "not a whole number"),
            ({"epochs": {"kind": "int", "low": 1}}, "high, low"),
            ({"epochs": {"kind": "int", "low": 1, "high": 2, "step": 1}}, "high, low"),
            ({"epochs": {"kind": "normal"}}, "int, float, log, choice"),
            ({"epochs": 3}, "int, float, log, choice"),
            ({"hidden_widths": {"kind": "int", "low": 8, "high": 9}}, "list its values"),
            ({"hidden_widths": {"kind": "choice", "choices": ["1-1-1", "32-32-16"]}}, "three widths"),
            ({"batch_size": {"kind": "choice", "choices": [64]}}, "2 to 20 values"),
            ({"batch_size": {"kind": "choice", "choices": [64, 64]}}, "each value once"),
        ],
        ids=str,
    )
    def test_that_cannot_be_are_refused(self, asked: dict[str, Any], says: str) -> None:
        with pytest.raises(InvalidParameter, match=says):
            read_ranges(V7, asked, Objective.LOSS)

    def test_of_the_loss_formula_are_taken_where_accuracy_decides(self) -> None:
        asked = {"label_smoothing": {"kind": "float", "low": 0, "high": 0.3}}
        assert len(read_ranges(V7, asked, Objective.ACCURACY)) == 1

    def test_of_a_logarithm_begin_above_zero(self) -> None:
        with pytest.raises(InvalidParameter, match="above 0"):
            read_ranges(V7, {"label_smoothing": {"kind": "log", "low": 0, "high": 0.3}}, Objective.ACCURACY)

    @pytest.mark.parametrize("text", ["", "log", "log 1", "log 1 2 3", "normal 1 2"])
    def test_are_written_in_one_of_four_ways(self, text: str) -> None:
        with pytest.raises(InvalidParameter, match="write"):
            parse_range(text)

    def test_of_words_and_numbers_are_told_apart(self) -> None:
        assert parse_range("choice 16, 3e-4 balanced")["choices"] == [16, 3e-4, "balanced"]
