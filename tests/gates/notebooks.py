"""Markets, and what the workers do, for tests of the kit for notebooks."""

from deploy.models import Release
from deploy.releases import settle
from gates import worker as gates_worker
from gates.models import Measurement
from tests.gates.conftest import BARS, DRIFT, SYSTEM
from training import worker as training_worker
from training.models import Coin, Dataset, TrainingRun
from training.rules import JobState
from training.services import datasets

LINE = "notebook"


def market(seed: int) -> Dataset:
    coin = Coin.objects.get(symbol="BTC")
    return datasets.simulate_candles(coin, bars=BARS, drift=DRIFT, seed=seed, actor=SYSTEM).dataset


def work(release_id: int) -> Release:
    """What the workers do until a release has settled."""
    settle.advance(Release.objects.get(pk=release_id))
    for run in TrainingRun.objects.filter(state=JobState.QUEUED):
        training_worker.train(run.pk, worker_name="training@test")
    settle.advance(Release.objects.get(pk=release_id))
    for measurement in Measurement.objects.filter(state=JobState.QUEUED):
        gates_worker.run(measurement.pk, worker_name="gates@test")
    settle.advance(Release.objects.get(pk=release_id))
    return Release.objects.select_related("status").get(pk=release_id)
