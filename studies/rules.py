"""States and limits of studies and their trials, without clock, database or sampler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from training.rules import JobState

MIN_TRIALS, MAX_TRIALS = 2, 200
MAX_PARALLEL = 8
MAX_RANGES = 12
FAILURES_IN_A_ROW = 5
"""A study whose first trials all fail is over: the next would fail too, and each costs money."""
STUDY_PRUNED = "pruned"
"""How the reason of a pruned run begins."""


class StudyState(StrEnum):
    """How a study stands."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self != StudyState.RUNNING


STUDY_TRANSITIONS: Mapping[str, frozenset[str]] = {
    StudyState.RUNNING: frozenset({StudyState.FINISHED, StudyState.FAILED, StudyState.CANCELLED}),
    StudyState.FINISHED: frozenset(),
    StudyState.FAILED: frozenset(),
    StudyState.CANCELLED: frozenset(),
}


class Objective(StrEnum):
    """The figure of the best epoch on the stop window that trials are compared by."""

    LOSS = "loss"
    ACCURACY = "accuracy"

    @property
    def is_minimized(self) -> bool:
        return self == Objective.LOSS

    @property
    def column(self) -> str:
        """Of a run, and of an epoch without `best_`."""
        return f"best_validation_{self}"


class Sampler(StrEnum):
    """How the parameters of the next trial are chosen."""

    TPE = "tpe"
    RANDOM = "random"


class TrialState(StrEnum):
    """How a trial stands: that of its run, with pruned ones apart."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self not in (TrialState.QUEUED, TrialState.RUNNING)


def compute_trial_state(run_state: str, *, is_pruned: bool) -> TrialState:
    """The state of a trial from that of its run."""
    if run_state == JobState.CANCELLED and is_pruned:
        return TrialState.PRUNED
    return TrialState.COMPLETE if run_state == JobState.SUCCEEDED else TrialState(run_state)


@dataclass(frozen=True)
class End:
    """The state in which a study ends, and why."""

    state: StudyState
    reason: str


def find_end(states: Sequence[TrialState], *, max_trials: int, obstacle: str | None) -> End | None:
    """Whether the study is over. `states` are those of its trials in order, `obstacle` why none can follow.

    It waits for the trials that are at work.
    """
    if any(not state.has_ended for state in states):
        return None
    complete = states.count(TrialState.COMPLETE)
    done = f"{len(states)} trials, {complete} of them complete and {states.count(TrialState.PRUNED)} pruned"
    if len(states) >= max_trials:
        if not complete:
            return End(StudyState.FAILED, f"{done}: none has a figure")
        return End(StudyState.FINISHED, done)
    if _only_fails(states):
        return End(StudyState.FAILED, f"the first {len(states)} trials failed; the runs say why")
    if obstacle is None:
        return None
    return End(StudyState.FINISHED if complete else StudyState.FAILED, f"{obstacle}, after {done}")


def count_due(states: Sequence[TrialState], *, max_trials: int, parallel: int) -> int:
    """How many trials are to be started now."""
    if _only_fails(states):
        return 0
    active = sum(not state.has_ended for state in states)
    return max(0, min(parallel - active, max_trials - len(states)))


def _only_fails(states: Sequence[TrialState]) -> bool:
    ended = [state for state in states if state.has_ended]
    return len(ended) >= FAILURES_IN_A_ROW and all(state == TrialState.FAILED for state in ended)
