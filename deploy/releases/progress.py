"""How far a release being built has come, coin by coin."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from deploy.models import Release, ReleaseCoin
from training.models import Epoch, TrainingRun
from training.rules import JobState


@dataclass(frozen=True)
class Lane:
    """One coin's way through a release."""

    place: ReleaseCoin
    run: TrainingRun | None
    epochs: Sequence[Epoch]

    @property
    def stage(self) -> str:
        """Where the coin is: waiting, queued, running, measuring, or what it came to."""
        if self.place.diagnosis is not None:
            return str(self.place.diagnosis.verdict)
        if self.place.bundle is not None:
            return "measuring"
        if self.run is None:
            return "waiting"
        return "measuring" if self.run.state == JobState.SUCCEEDED else str(self.run.state)

    @property
    def losses(self) -> list[float | None]:
        return [epoch.validation_loss for epoch in self.epochs]

    @property
    def seconds_left(self) -> float:
        """Until its last epoch at the pace of those it has done; 0 once it has ended, or before it began."""
        if self.run is None or self.run.has_ended or not self.epochs:
            return 0.0
        return median(epoch.seconds for epoch in self.epochs) * max(0, self.run.epochs - len(self.epochs))


@dataclass(frozen=True)
class Progress:
    release: Release
    lanes: Sequence[Lane]

    @property
    def seconds_left(self) -> float | None:
        """At the most, while coins train side by side; None before any epoch is done."""
        longest = max((lane.seconds_left for lane in self.lanes), default=0.0)
        return longest or None

    @property
    def devices(self) -> list[str]:
        """What trains it, each once: "NVIDIA A10G on gpu-1"."""
        running = [lane.run for lane in self.lanes if lane.run and lane.run.state == JobState.RUNNING]
        return sorted({f"{run.device or 'CPU'} on {run.worker_name}" for run in running})


def progress(release: Release) -> Progress:
    places = release.coins.select_related("coin", "dataset", "run", "bundle", "diagnosis").prefetch_related(
        "run__epoch_rows"
    )
    lanes = [Lane(p, p.run, list(p.run.epoch_rows.all()) if p.run else []) for p in places]
    return Progress(release, lanes)
