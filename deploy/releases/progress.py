"""The progress of a release that is being built, coin by coin."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from deploy.models import Release, ReleaseCoin
from training.models import Epoch, TrainingRun
from training.rules import JobState


@dataclass(frozen=True)
class CoinProgress:
    """The progress of one coin."""

    release_coin: ReleaseCoin

    @property
    def run(self) -> TrainingRun | None:
        """The training that is shown: the second one, once the first has ended and it has not."""
        first, second = self.release_coin.run, self.release_coin.second_run
        is_over = first is not None and first.has_ended
        return second if is_over and second is not None and not second.has_ended else first

    @property
    def runs(self) -> Sequence[TrainingRun]:
        return [run for run in (self.release_coin.run, self.release_coin.second_run) if run is not None]

    @property
    def epochs(self) -> Sequence[Epoch]:
        return list(self.run.epoch_rows.all()) if self.run else []

    @property
    def stage(self) -> str:
        """Where the coin is: waiting, queued, running, measuring, or its verdict."""
        if self.release_coin.diagnosis is not None:
            return str(self.release_coin.diagnosis.verdict)
        if self.run is not None and not self.run.has_ended:
            return str(self.run.state)
        if self.release_coin.bundle is not None:
            return "measuring"
        if self.run is None:
            return "waiting"
        return "measuring" if self.run.state == JobState.SUCCEEDED else str(self.run.state)

    @property
    def losses(self) -> list[float | None]:
        return [epoch.validation_loss for epoch in self.epochs]

    @property
    def seconds_left(self) -> float:
        """Until its last epoch, at the median time of its epochs so far; 0 before it begins and after it ends."""
        return max((_estimate_left(run) for run in self.runs), default=0.0)


def _estimate_left(run: TrainingRun) -> float:
    epochs = run.epoch_rows.all()
    if run.has_ended or not epochs:
        return 0.0
    return median(epoch.seconds for epoch in epochs) * max(0, run.epochs - len(epochs))


@dataclass(frozen=True)
class Progress:
    release: Release
    coins: Sequence[CoinProgress]

    @property
    def seconds_left(self) -> float | None:
        """An upper bound, while coins train in parallel; None before any epoch is done."""
        longest = max((coin.seconds_left for coin in self.coins), default=0.0)
        return longest or None

    @property
    def devices(self) -> list[str]:
        """The devices that train it, each once: "NVIDIA A10G on gpu-1"."""
        running = [run for coin in self.coins for run in coin.runs if run.state == JobState.RUNNING]
        return sorted({f"{run.device or 'CPU'} on {run.worker_name}" for run in running})


def load_progress(release: Release) -> Progress:
    rows = release.coins.select_related("coin", "dataset", "run", "bundle", "diagnosis")
    second = ["run__reproductions__epoch_rows"] if release.is_reproduced else []
    rows = rows.prefetch_related("run__epoch_rows", *second)
    return Progress(release, [CoinProgress(row) for row in rows])
