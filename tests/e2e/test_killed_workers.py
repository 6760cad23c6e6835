"""A worker killed in the middle of a release costs time and nothing else."""

import random
from pathlib import Path

import pytest

from audit import services as audit
from deploy.models import Release
from deploy.outcomes import list_release_coins
from deploy.rules import ReleaseState
from tests.e2e.killed_workers import (
    EPOCHS,
    Trial,
    Workers,
    digest_without_kill,
    run_release_with_kill,
    simulated_datasets,
)
from tests.processes import REPOSITORY, StartWorker
from training.rules import JobState

SOAK_TRIALS = 20


@pytest.mark.processes
@pytest.mark.long
def test_a_release_ends_as_it_should_whenever_a_worker_is_killed(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    run_trials(start_worker, tmp_path, trials=3)


@pytest.mark.soak
@pytest.mark.processes
def test_twenty_releases_with_one_killed_worker_each(start_worker: StartWorker, tmp_path: Path) -> None:
    trials = run_trials(start_worker, tmp_path, trials=SOAK_TRIALS)
    (REPOSITORY / "docs" / "soak.md").write_text(format_report(trials))


def run_trials(start_worker: StartWorker, folder: Path, *, trials: int) -> list[Trial]:
    simulated_datasets()
    workers = Workers(start_worker)
    chance = random.Random(20261122)
    found = [run_release_with_kill(workers, seed=seed, chance=chance) for seed in range(trials)]
    assert {trial.state for trial in found} <= {ReleaseState.AWAITING_APPROVAL, ReleaseState.REJECTED}
    for release in Release.objects.all():
        assert_same_as_without_kill(release, folder)
    assert audit.verify() == []
    return found


def assert_same_as_without_kill(release: Release, folder: Path) -> None:
    """Every coin was trained once and judged; its bundle has the same bytes as one of an uninterrupted training."""
    for release_coin in list_release_coins(release):
        assert release_coin.run is not None
        assert release_coin.run.state == JobState.SUCCEEDED, release_coin.run.failure
        numbers = [epoch.number for epoch in release_coin.run.epoch_rows.all()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert 1 <= len(numbers) <= EPOCHS
        assert release_coin.diagnosis is not None
        # No fallback is registered here, so skill cannot be measured. Everything else was.
        errors = {result.gate for result in release_coin.diagnosis.results.all() if result.verdict == "error"}
        assert errors <= {"skill"}
    chosen = list_release_coins(release)[release.pk % 3]
    assert chosen.bundle is not None
    assert chosen.bundle.digest == digest_without_kill(chosen, folder / f"{release.pk}")


def format_report(trials: list[Trial]) -> str:
    """The figures of a soak as a page of the documentation."""
    rows = [
        f"| {t.seed} | {t.killed} | {t.killed_after_seconds:.1f} | {t.attempts} | {t.seconds:.0f} | {t.state} |"
        for t in trials
    ]
    return "\n".join(
        [
            "# Releases with killed workers",
            "",
            f"Written by `make soak`: {len(trials)} releases of three coins. In each, one worker process was killed with",
            "SIGKILL at a random moment. Every run ended with every epoch reported once, and with the bytes of an",
            "uninterrupted training. Every coin was judged, and the audit chain was sound. A *rejected* release was",
            f"rejected by its figures: {EPOCHS} epochs on a short market do not always reach 65 %.",
            "",
            "| seed | killed | after (s) | attempts of its three runs | settled after (s) | state |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )
