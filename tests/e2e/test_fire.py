"""A worker killed in the middle of a release costs time and nothing else."""

import os
import random
from pathlib import Path

import pytest

from audit import services as audit
from deploy.models import Release
from deploy.outcomes import places_of
from deploy.rules import ReleaseState
from tests.e2e.fire import EPOCHS, Trial, Workers, digest_undisturbed, release_under_fire, simulated_datasets
from tests.processes import StartWorker
from training.rules import JobState

TRIALS = int(os.environ.get("CRPBOT_SOAK_TRIALS", "3"))
SEED = int(os.environ.get("CRPBOT_SOAK_SEED", "20261122"))


@pytest.mark.processes
def test_a_release_ends_as_it_should_whenever_a_worker_is_killed(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    simulated_datasets()
    workers = Workers(start_worker)
    chance = random.Random(SEED)
    trials = [release_under_fire(workers, seed=seed, chance=chance) for seed in range(TRIALS)]
    print_account(trials)
    assert {trial.state for trial in trials} <= {ReleaseState.AWAITING_APPROVAL, ReleaseState.REJECTED}
    for release in Release.objects.all():
        assert_undisturbed(release, tmp_path)
    assert audit.verify() == []


def assert_undisturbed(release: Release, folder: Path) -> None:
    """Every coin was trained to its end once, to the very bytes of a training that nobody disturbed, and judged."""
    for place in places_of(release):
        assert place.run is not None
        assert place.run.state == JobState.SUCCEEDED, place.run.failure
        numbers = [epoch.number for epoch in place.run.epoch_rows.all()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert 1 <= len(numbers) <= EPOCHS
        assert place.diagnosis is not None
        assert {r.verdict for r in place.diagnosis.results.all()} & {"error"} == set()
    chosen = places_of(release)[release.pk % 3]
    assert chosen.bundle is not None
    assert chosen.bundle.digest == digest_undisturbed(chosen, folder / f"{release.pk}")


def print_account(trials: list[Trial]) -> None:
    """For `make soak`, which shows it; pytest hides it otherwise."""
    print("seed  killed                      after    attempts  settled    state")
    for t in trials:
        print(
            f"{t.seed:4}  {t.shot:26}  {t.shot_after_seconds:4.1f} s  {t.attempts:8}  {t.seconds:6.1f} s  {t.state}"
        )
